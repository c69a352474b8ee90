/** docs/interop.md, made of the results of a run: what was tried, where it is as with the stock daemon. */
import { ACCEPTED } from './accepted.ts'
import { type CellResult, COLUMNS } from './matrix.ts'
import { ASPECTS } from './observe.ts'
import { nameOf } from './rows.ts'

export interface ClientResults {
  version: string
  results: readonly CellResult[]
}

/** The page. `oracle` is the version of the stock daemon, `date` an ISO day. */
export function report(clients: readonly ClientResults[], oracle: string, date: string): string {
  const [first, ...others] = clients as [ClientResults, ...ClientResults[]]
  return `${[
    introduction(clients, oracle, date),
    legend(),
    accepted(clients),
    ...groupsOf(first.results).map(([group, results]) => `### ${group}\n\n${table(results)}`),
    ...others.map((client) => otherClient(client, first)),
    OTHER_IMPLEMENTATIONS,
  ].join('\n\n')}\n`
}

function introduction(clients: readonly ClientResults[], oracle: string, date: string): string {
  const counts = clients.map(({ version, results }) => {
    const red = results.filter(({ failures }) => failures.length > 0).length
    const excused = results.filter(
      ({ failures, accepted }) => failures.length === 0 && accepted.length > 0,
    ).length
    return `| rsync ${version} | ${results.length} | ${results.length - red - excused} | ${excused} | ${red} |`
  })
  return `# Interoperation

Made by \`script/interop --write\` on ${date}; don't edit. Each cell below is one run of a stock rsync client
against upserv and one against \`rsync --daemon\` ${oracle} with the same builds, from the same basis. What a client
can see is compared: exit code, the resulting tree (types, modes, owners, times to the nanosecond, contents,
links, devices), extended attributes and ACLs where they are asked for, each itemised line, the statistics
that don't depend on how a list is encoded, and complaints. \`test/interop-matrix/observe.ts\` says what is not
compared, and why (aspects: ${ASPECTS.join(', ')}).

A run covers every row at protocol 32 and at one other in turn; \`--all\` covers every row at every one.

| client | cells | as with rsync --daemon | as meant, with a reason | differ |
|---|---|---|---|---|
${counts.join('\n')}`
}

function legend(): string {
  return `## Results

\`=\`: the client could not tell the servers apart and ended well. A number: the same, and both end with this
exit code. A letter: a difference that is meant, see below. **✗**: different, which is a bug. Nothing: not run.
Unless its row says otherwise, a client goes from one build to the next with \`-ii --stats\`.`
}

function accepted(clients: readonly ClientResults[]): string {
  const seen = new Set(clients.flatMap(({ results }) => results.flatMap((result) => result.accepted)))
  const lines = ACCEPTED.filter((one) => seen.has(one)).map(({ mark, reason }) => `- **${mark}** ${reason}`)
  return `Differences that are meant:\n\n${lines.join('\n')}`
}

function groupsOf(results: readonly CellResult[]): [string, CellResult[]][] {
  return [...Map.groupBy(results, ({ row }) => row.group)]
}

function table(results: readonly CellResult[]): string {
  const lines = [...Map.groupBy(results, ({ row }) => row)].map(([row, cells]) => {
    const marks = COLUMNS.map((column) => markOf(cells.find((cell) => cell.column === column)))
    return `| ${code(nameOf(row))} | ${marks.join(' | ')} |`
  })
  return [
    `| | ${COLUMNS.map(({ label }) => label).join(' | ')} |`,
    `|---${'|---'.repeat(COLUMNS.length)}|`,
    ...lines,
  ].join('\n')
}

function markOf(cell: CellResult | undefined): string {
  if (!cell) return ''
  if (cell.failures.length > 0) return '**✗**'
  const marks = cell.accepted.map(({ mark }) => mark).join('')
  const exit = /^[0 ]+$/.test(cell.exit) ? '' : cell.exit
  return [exit, marks].filter((part) => part !== '').join(' ') || '='
}

/** Of a client that went through some of the same: what is not as with the first, or new and not as with stock. */
function otherClient({ version, results }: ClientResults, first: ClientResults): string {
  const known = new Map(first.results.map((cell) => [cell.row, new Map<unknown, string>()]))
  for (const cell of first.results) known.get(cell.row)!.set(cell.column, markOf(cell))
  const apart = results.filter((cell) => markOf(cell) !== (known.get(cell.row)?.get(cell.column) ?? '='))
  const rows =
    apart.length === 0 ? 'Each cell is as above.' : `Cells that are not as above:\n\n${table(apart)}`
  return `## rsync ${version}\n\n${rows}`
}

/** As inline code in a table: a bar would end the cell, and control characters are shown. */
function code(text: string): string {
  const shown = text.replaceAll('|', '\\|').replaceAll('\n', '\\n')
  return shown.includes('`') ? `\`\` ${shown} \`\`` : `\`${shown}\``
}

/** What was looked for beside the stock client. A sentence of it is changed here when somebody tries again. */
const OTHER_IMPLEMENTATIONS = `## Other clients

- Stock rsync before 3.2.7: Debian 12 has 3.2.7 and 3.5.0 only. Both can be held to protocols 27 to 32, which is what
  the columns are; what 2.6.9, 3.0.9 or 3.1.3 do beside the protocol is not covered. \`script/interop --client PATH\`
  takes any client.
- openrsync and Perl's File::RsyncP (protocol 28) are not packaged for Debian 12. \`backuppc-rsync\` is: a patched
  3.1.3 that writes into BackupPC's pool instead of a tree, so that there is no tree to compare; it was not tried.`
