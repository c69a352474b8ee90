/**
 * `script/interop`: real clients, every protocol, hundreds of option sets, against upserv and against the
 * stock daemon with the same builds; what differs and is not meant to is a failure.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { formatDuration } from '../../src/lib/units.ts'
import { ACCEPTED } from '../../test/interop-matrix/accepted.ts'
import { missingTools } from '../../test/interop-matrix/builds.ts'
import {
  type Cell,
  type CellResult,
  COLUMNS,
  cellsOf,
  explain,
  Matrix,
  versionOf,
} from '../../test/interop-matrix/matrix.ts'
import { type ClientResults, report } from '../../test/interop-matrix/report.ts'
import { nameOf, ROWS } from '../../test/interop-matrix/rows.ts'
import { RSYNC } from '../../test/support/rsync.ts'
import { isRoot } from '../../test/support/scratch.ts'

const USAGE = `Usage: script/interop [--short | --all] [--write] [--row=FILTER] [--protocol N] [--client PATH]... [--jobs N]

Runs a stock rsync client with each row of options of test/interop-matrix/rows.ts at each protocol,
against upserv and against rsync --daemon with the same builds, and compares what a client can see:
tree, itemised changes, statistics, complaints, exit code. Needs root, rsync, attr and acl.

  --short         a fifth of the rows, each at one protocol in turn
  --all           every row at every protocol; else at 32 and at another one in turn
  --row=FILTER    only rows whose name holds FILTER
  --protocol N    only this protocol
  --client PATH   this client (default: rsync, or the one that RSYNC names). May be repeated: of the
                  second and later ones a fifth of the rows, unless with --all
  --jobs N        cells at a time (default 2)
  --write         writes docs/interop.md; not of some rows or protocols only
  --verbose       each cell
`

const { values: options } = parseArgs({
  options: {
    short: { type: 'boolean', default: false },
    all: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    verbose: { short: 'v', type: 'boolean', default: false },
    row: { type: 'string' },
    protocol: { type: 'string' },
    client: { type: 'string', multiple: true },
    jobs: { type: 'string', default: '2' },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
if (options.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}
if (!isRoot) {
  console.error('script/interop needs root: builds have owners, devices and capabilities.')
  process.exit(77)
}
const missing = missingTools()
if (missing.length > 0) {
  console.error(`script/interop needs ${missing.join(', ')}: see script/setup`)
  process.exit(69)
}

const rows = ROWS.filter((row) => nameOf(row).includes(options.row ?? ''))
const columns = COLUMNS.filter(
  ({ protocol }) => options.protocol === undefined || protocol === Number(options.protocol),
)
const firstCells = cellsOf(rows, columns, options.short ? 'short' : options.all ? 'all' : 'usual')
if (firstCells.length === 0) {
  console.error('No such rows or protocols')
  process.exit(64)
}

const isWhole = options.row === undefined && options.protocol === undefined && !options.short
if (options.write && !isWhole) {
  console.error('--write needs all rows and protocols')
  process.exit(64)
}
let failed = 0
const clients: ClientResults[] = []
const seen = new Set<unknown>()
await using matrix = await Matrix.start()
for (const [index, program] of (options.client ?? [RSYNC]).entries()) {
  const cells = index === 0 || options.all ? firstCells : cellsOf(rows, columns, 'short')
  console.log(`rsync ${versionOf(program)}: ${cells.length} cells`)
  const started = performance.now()
  const results: CellResult[] = []
  await matrix.run(cells, { program, jobs: Number(options.jobs) }, (result) => {
    results.push(result)
    for (const accepted of result.accepted) seen.add(accepted)
    if (result.failures.length > 0) console.log(`DIFFERS ${explain(result)}`)
    else if (options.verbose)
      console.log(
        `${result.exit.padStart(3)} ${result.accepted.map(({ mark }) => mark)} ${nameOf(result.row)} [${result.column.label}]`,
      )
  })
  // As the table has them, not as they came to an end.
  results.sort((a, b) => cells.findIndex(isCellOf(a)) - cells.findIndex(isCellOf(b)))
  clients.push({ version: versionOf(program), results })
  const red = results.filter(({ failures }) => failures.length > 0).length
  failed += red
  console.log(
    `${results.length - red} as with the stock daemon, ${red} differ, in ${formatDuration(performance.now() - started)}`,
  )
}
if (options.write) {
  writeFileSync('docs/interop.md', report(clients, versionOf(RSYNC), new Date().toISOString().slice(0, 10)))
  console.log('Wrote docs/interop.md')
}
const unused = isWhole ? ACCEPTED.filter((accepted) => !seen.has(accepted)) : []
for (const { mark, reason } of unused) console.log(`Accepted but never seen: ${mark}: ${reason}`)
process.exitCode = failed > 0 || unused.length > 0 ? 1 : 0

function isCellOf(result: Cell): (cell: Cell) => boolean {
  return ({ row, column }) => row === result.row && column === result.column
}
