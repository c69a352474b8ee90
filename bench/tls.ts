/** What TLS costs the server: processor time for each gigabyte that it sends, and for each connection. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect as connectPlain, type Socket } from 'node:net'
import { connect } from 'node:tls'
import { Authority } from '../test/support/certificates.ts'
import { Mirror, randomTree } from '../test/support/mirror.ts'
import { rsync } from '../test/support/rsync.ts'
import { rsyncSsl, tlsPort } from '../test/support/rsync-ssl.ts'
import type { Upserv } from '../test/support/upserv.ts'
import { table } from './lib/markdown.ts'
import { parseProcStat } from './lib/meter.ts'
import { startProgram } from './lib/program.ts'

const options = startProgram(
  `Usage: bench/tls [OPTIONS]

The same build by rsync and by rsync-ssl (openssl), by turns, and connections that only greet. The server's
processor time, as medians.
`,
  { rounds: 5 },
)
const FILES = 16
const FILE_BYTES = options.short ? 2_000_000 : 32_000_000
const CONNECTIONS = options.short ? 50 : 500

await using mirror = new Mirror()
await mirror.publish('1', randomTree(1, FILES, FILE_BYTES))
await mirror.startNginx()
const ours = await Authority.make(mirror.path('ours'))
const { cert, key } = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
const config = mirror.path('upserv.toml')
writeFileSync(config, `[rsync]\ntls_listen = "127.0.0.1:0"\n[tls]\ncert = "${cert}"\nkey = "${key}"\n`)
const upserv = await mirror.startUpserv({ config })
const ca = readFileSync(ours.cert)

/** Seconds of the processor that the server takes while `work` is done. */
async function cpuOf({ process }: Upserv, work: () => Promise<void>): Promise<number> {
  const now = () => {
    return parseProcStat(readFileSync(`/proc/${process.child.pid}/stat`, 'utf8')).total
  }
  const before = now()
  await work()
  return now() - before
}

async function sync(tls: boolean): Promise<void> {
  const place = mirror.place()
  const url = `rsync://localhost:${tls ? tlsPort(upserv) : upserv.port}/build-1/root/`
  const { code, stderr } = tls
    ? await rsyncSsl('openssl', ['-a', '--whole-file', url, place], { ca: ours.cert })
    : await rsync(['-a', '--whole-file', url, place])
  assert.equal(code, 0, stderr)
}

async function greet(tls: boolean): Promise<void> {
  for (let n = 0; n < CONNECTIONS; n++) {
    const socket: Socket = tls
      ? connect({ port: tlsPort(upserv), host: '127.0.0.1', servername: 'localhost', ca })
      : connectPlain(upserv.port, '127.0.0.1')
    socket.write('@RSYNCD: 31.0 md5\n#list\n')
    for await (const _ of socket) {
      // The list of modules.
    }
  }
}

const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1]!
const rows = [
  { what: 'ms for each GB sent', work: sync, per: 1e3 / ((FILES * FILE_BYTES) / 1e9) },
  { what: 'ms for each connection that lists modules', work: greet, per: 1e3 / CONNECTIONS },
]
const cells: string[][] = []
for (const { what, work, per } of rows) {
  const took: Record<'plain' | 'tls', number[]> = { plain: [], tls: [] }
  await work(false)
  await work(true)
  for (let round = 0; round < options.rounds; round++) {
    took.plain.push((await cpuOf(upserv, () => work(false))) * per)
    took.tls.push((await cpuOf(upserv, () => work(true))) * per)
  }
  const [plain, tls] = [median(took.plain), median(took.tls)]
  cells.push([what, plain.toFixed(1), tls.toFixed(1), (tls / plain).toFixed(2)])
}
console.log(table(['server CPU', 'plain', 'TLS', 'ratio'], cells))
await upserv.stop()
