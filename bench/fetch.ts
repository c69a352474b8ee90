/**
 * `bench/fetch`: what the first request for a build costs beside `curl | DECOMPRESSOR | tar x`, on a whole
 * Debian root from a local nginx, in one run and by turns. Wall time and CPU of everything that works.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { formatSize } from '../src/lib/units.ts'
import { startNginx } from '../test/support/nginx.ts'
import { quoteForShell, run } from '../test/support/processes.ts'
import { UPSERV } from '../test/support/upserv.ts'

const USAGE = `Usage: bench/fetch [--short] [--runs N] [--tree FILE.tar.zst] [--assert]

Fetches a whole Debian root, as gz, bz2, xz and zst, with \`upserv fetch\` and with
\`curl | DECOMPRESSOR | tar x\`, by turns, and prints the medians of wall time and CPU.
The root is that of script/whole-system, which is made if it is not there.

  --short     the root of script/whole-system --short
  --runs N    of each (default 3)
  --tree FILE another archive, as .tar.zst
  --assert    fail when the wall time is more than 1.1 times that of bz2 and xz, 1.5 of gz and zst
`
const { values: options } = parseArgs({
  options: {
    short: { type: 'boolean', default: false },
    runs: { type: 'string', default: '3' },
    tree: { type: 'string' },
    assert: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
if (options.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}

/** As mirrors have them: xz and zstd as Debian packs, bzip2 and gzip at their defaults. */
const FORMS = [
  { suffix: 'gz', pack: 'gzip -n', unpack: 'gzip -dc', most: 1.5 },
  { suffix: 'bz2', pack: 'lbzip2', unpack: 'lbzip2 -dc', most: 1.1 },
  { suffix: 'xz', pack: 'xz -6 -T0', unpack: 'xz -dc -T0', most: 1.1 },
  { suffix: 'zst', pack: 'zstd -q -3 -T0', unpack: 'zstd -q -dc', most: 1.5 },
]
const STEP_MS = 30 * 60_000

const home = resolve('tmp/bench-fetch')
const www = join(home, 'www')
mkdirSync(www, { recursive: true })
const source = options.tree ?? (await debianRoot())
for (const { suffix, pack } of FORMS) {
  if (!existsSync(join(www, suffix)))
    await shell(
      `zstd -q -dc ${quoteForShell(source)} | ${pack} > ${suffix}.new && mv ${suffix}.new ${suffix}`,
      www,
    )
}
const nginx = await startNginx({ root: www, scratch: join(home, 'nginx') })
let failed = false
try {
  console.log('form     archive       curl|tar         upserv fetch       wall     CPU')
  for (const { suffix, unpack, most } of FORMS) {
    const [peer, ours]: [Cost[], Cost[]] = [[], []]
    for (let n = 0; n < Number(options.runs); n++) {
      peer.push(await timed(`curl -sf ${nginx.url}/${suffix} | ${unpack} | tar -C tree -x`, ['tree']))
      ours.push(
        await timed(`${quoteForShell(UPSERV)} fetch ${suffix} --data data --config upserv.toml`, ['data']),
      )
    }
    const [a, b] = [median(peer), median(ours)]
    const [wall, cpu] = [b.wall / a.wall, b.cpu / a.cpu]
    const show = ({ wall, cpu }: Cost): string => `${wall.toFixed(2)} s / ${cpu.toFixed(2)} s`.padEnd(18)
    const size = formatSize(statSync(join(www, suffix)).size).padEnd(9)
    console.log(
      `${suffix.padEnd(5)} ${size}  ${show(a)} ${show(b)}  ${wall.toFixed(2)}  ${cpu.toFixed(2)}${wall > most ? `   more than ${most}` : ''}`,
    )
    failed ||= wall > most
  }
} finally {
  await nginx.stop()
}
if (failed && options.assert) process.exit(1)

async function debianRoot(): Promise<string> {
  const root = resolve('tmp/whole-system', options.short ? 'short' : 'long', 'upstream/1.tar.zst')
  if (!existsSync(root))
    await shell(`script/whole-system --builds-only ${options.short ? '--short' : ''}`, '.')
  return root
}

interface Cost {
  /** Seconds. */
  wall: number
  /** Of all processes, the web server's apart. */
  cpu: number
}

/** Runs a command in a fresh place. The shell says what its children took. */
async function timed(command: string, directories: readonly string[]): Promise<Cost> {
  const place = join(home, 'place')
  rmSync(place, { recursive: true, force: true })
  for (const directory of directories) mkdirSync(join(place, directory), { recursive: true })
  const config = `[[source]]\nname = "nginx"\nurl = "${nginx.url}/{build}"\n`
  await shell(`cat > upserv.toml <<'END'\n${config}END`, place)
  await run('sync', [])
  const { stdout } = await run(
    'bash',
    [
      '-c',
      `cd ${quoteForShell(place)}\nTIMEFORMAT='%R %U %S'\nset -o pipefail\n{ time { ${command}; } >/dev/null 2>&1; } 2>&1`,
    ],
    { timeoutMs: STEP_MS },
  )
  const [wall = Number.NaN, user = Number.NaN, system = Number.NaN] = stdout
    .trim()
    .split('\n')
    .at(-1)!
    .split(' ')
    .map(Number)
  assert.ok(Number.isFinite(wall + user + system), `${command}: ${stdout}`)
  return { wall, cpu: user + system }
}

function median(costs: readonly Cost[]): Cost {
  return [...costs].sort((a, b) => a.wall - b.wall)[Math.floor(costs.length / 2)]!
}

async function shell(script: string, directory: string): Promise<void> {
  const { code, stderr } = await run('bash', ['-c', `cd ${quoteForShell(directory)} && ${script}`], {
    timeoutMs: STEP_MS,
  })
  assert.equal(code, 0, stderr)
}
