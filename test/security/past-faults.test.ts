/**
 * Classes of faults that rsync's own server has had (CVE numbers of its releases up to 3.5.0) and that no language
 * prevents: a test for each, by name. test/security/weakened.test.ts puts each fault into a copy of the sources and
 * sees that the test of that name notices.
 */
import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { HostRules, whyNoNetwork } from '../../src/access/hosts.ts'
import { type ModuleRules, Policy } from '../../src/access/policy.ts'
import { parseUserRule } from '../../src/access/users.ts'
import { loadConfig } from '../../src/config/config.ts'
import { TurnsInLine } from '../../src/daemon/turns.ts'
import { Doorstep } from '../../src/doorstep/doorstep.ts'
import { utf8Bytes } from '../../src/lib/bytes.ts'
import { createLogger } from '../../src/lib/log.ts'
import { peerFrom } from '../../src/lib/peer.ts'
import { type BlockSums, matchBlocks, weakSum } from '../../src/rsync/delta/match.ts'
import { serve } from '../../src/server.ts'
import {
  framed,
  HostileServer,
  item,
  NO_FILTERS,
  nul,
  rule,
  say,
  start,
  sumHead,
  text,
  worked,
} from '../support/hostile.ts'
import { makeScratch } from '../support/scratch.ts'
import { sessionContext, startSession } from '../support/session.ts'
import { FAULTS } from './weakenings.ts'

const GOODBYE = Buffer.from('0000000000', 'hex')
/** For a session that a fault would keep for ever. */
const SOON_MS = 20_000

const server = new HostileServer()
after(() => server.close())

/** Refers to the table, so that no class goes without a test, and no test without a weakening. */
function fault(
  cve: keyof typeof FAULTS,
  body: (t: import('node:test').TestContext) => Promise<void> | void,
): void {
  test(FAULTS[cve].name, { timeout: SOON_MS }, body)
}

fault('CVE-2026-53791', async () => {
  // Whoever connects says where it comes from: nobody has said that this peer may.
  for (const header of ['PROXY TCP4 203.0.113.9 192.0.2.2 4711 873\r\n', 'PROXY UNKNOWN\r\n']) {
    const { pipe, report } = startSession({ ...server.context, modules: server.modules })
    pipe.send(text(`${header}@RSYNCD: 31.0\n#list\n`))
    pipe.end()
    const { outcome, error } = await report
    assert.equal(outcome, 'peer-error')
    assert.match(String(error), /PROXY header came from an address that is not listed/)
  }
  // The same at the doors of a server that believes another address, and lets in whom such a header names.
  using scratch = makeScratch('not-believed')
  const config = join(scratch.path, 'upserv.toml')
  writeFileSync(config, FOR_ONE_ADDRESS)
  const log = createLogger()
  log.level = 'silent'
  const running = await serve(loadConfig({ config, data: join(scratch.path, 'data') }, {}), log)
  try {
    const header = `PROXY TCP4 ${THE_ONE} 192.0.2.2 4711 873\r\n`
    const byRsync = await exchange(running.listening[0]!, `${header}@RSYNCD: 31.0\nchannels\n`)
    assert.doesNotMatch(byRsync, /@RSYNCD: OK/, 'it was let in as whoever it says it is')
    assert.match(byRsync, /PROXY header came from an address that is not listed/)
    const byHttp = await exchange(
      running.httpUrls[0]!,
      `${header}GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`,
    )
    assert.match(byHttp, /^HTTP\/1\.1 400 [\s\S]*PROXY header came from 127\.0\.0\.1, which is not listed/)
  } finally {
    await running.stop()
  }
})

fault('CVE-2026-53786', async () => {
  const policy = new Policy(
    { hosts: { allow: [], deny: [] }, modules: [{ ...RULES, exclude: ['*.o', '/sub/deep'] }] },
    assert.fail,
  )
  const hiding = {
    modules: server.modules,
    context: { ...server.context, visitor: policy.visitor.bind(policy) },
  }
  const rulesOfTheClient = [
    [],
    ['+ *.o'],
    ['+ **'],
    ['+ /sub/deep/***', '+ x.o'],
    ['!'],
    ['. .rules'],
    ['protect *.o'],
  ]
  for (const rules of rulesOfTheClient) {
    const said = [start('-r', '.', 'm/'), framed(...rules.map(rule), NO_FILTERS, GOODBYE)]
    const { report, output } = await say(hiding as unknown as HostileServer, said)
    assert.equal(report.outcome, 'done')
    assert.ok(output.includes('a.txt'))
    for (const hidden of ['x.o', 'deep']) {
      const listed = output.toString('latin1').replaceAll('sub/deep', 'the target of a link')
      assert.ok(!listed.includes(hidden), `${hidden} is shown to a client with the rules ${rules}`)
    }
    // By its name, which the client may know.
    const named = await say(hiding as unknown as HostileServer, [
      start('-r', '.', 'm/sub/x.o', 'm/sub/deep/f', 'm/loop/sub/x.o'),
      framed(...rules.map(rule), NO_FILTERS, GOODBYE),
    ])
    assert.equal(named.report.entries, 0)
  }
})

fault('CVE-2026-53792', async () => {
  const said = (count: number) => [
    start('-r', '.', 'm/'),
    framed(NO_FILTERS, item(server.ndx('large')), sumHead(count, 0, 16), Buffer.alloc(20 * 3), GOODBYE),
  ]
  for (const count of [1, 3]) {
    const { report } = await say(server, said(count))
    assert.equal(report.outcome, 'peer-error')
    assert.match(String(report.error), /blocks of length 0/)
  }
})

fault('CVE-2026-53794', async () => {
  // So many sums that they are not to be held in memory: then the file is sent whole, and nothing is searched.
  const sums = Buffer.alloc(1_000_000 * 20, 0xee)
  for (const option of ['--max-alloc=0', '--max-alloc=99999999T', '--no-max-alloc']) {
    const { report } = await say(server, [
      start('-r', option, '.', 'm/'),
      framed(NO_FILTERS, item(server.ndx('large')), sumHead(1_000_000, 700, 16), sums, GOODBYE),
    ])
    assert.equal(report.outcome, 'done')
    const { searched, literalBytes } = report.figures
    assert.deepEqual(
      [searched, literalBytes],
      [0, 300_000],
      `${option}: 20 MB of sums were taken into memory`,
    )
  }
})

fault('CVE-2026-70464', async (t) => {
  // One who stops in the middle of what comes before the protocol.
  const doorstep = new Doorstep({ isProxy: () => true, tls: undefined })
  const met = Promise.withResolvers<unknown>()
  const listener = createServer((socket) => {
    doorstep.meet(socket, 100).then(met.reject, met.resolve)
  }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const stalled = connect(port, '127.0.0.1', () => stalled.write('PROXY TCP4 192.0.2.1')).on(
    'error',
    () => {},
  )
  t.after(() => {
    stalled.destroy()
    listener.close()
  })
  const patience = sleep(SOON_MS / 2, 'it is there still', { ref: false })
  assert.match(String(await Promise.race([met.promise, patience])), /did not begin in time/)
  t.mock.timers.enable({ apis: ['setInterval', 'setTimeout'] })
  let clock = 0
  const turns = new TurnsInLine({ most: 1, places: 5, now: () => clock })
  const modules = server.modules
  const context = { ...server.context, ...sessionContext({}, { now: () => clock }), turns, modules }
  const half = startSession(context)
  half.pipe.send(text('@RSYNCD: 31.0\nm\n')) // and never the arguments
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) await nextTurn()
  }
  await settle()
  // Half a second is allowed to claim the one turn; then it is another's.
  t.mock.timers.tick(600)
  let called = false
  void turns
    .enter([], () => {}, AbortSignal.timeout(60_000))
    .then((turn) => {
      called = true
      turn.leave()
    })
  await settle()
  assert.ok(called, 'the half handshake keeps the turn that it was promised')
  let over = false
  void half.report.then(() => {
    over = true
  })
  for (; !over && clock <= 70_000; clock += 1000) {
    t.mock.timers.tick(1000)
    await settle()
  }
  assert.ok(over, 'a handshake that nobody finishes holds its connection for ever')
  assert.equal((await half.report).outcome, 'lost')
})

fault('CVE-2026-70455', async () => {
  const threads = (): number => readdirSync('/proc/self/task').length
  const ask = (...options: string[]): Uint8Array[] => [
    start('-rz', '--compress-choice=zstd', ...options, '.', 'm/'),
    framed(NO_FILTERS, item(server.ndx('large')), sumHead(0, 0, 0), GOODBYE),
  ]
  // What the first compression starts is there before it is counted.
  await say(server, ask())
  const before = threads()
  let most = before
  for (const option of ['--compress-threads=200', '--compress-threads=-1', '--zt=200']) {
    // One that has nothing compressed yet.
    const fresh = new HostileServer()
    const { pipe, report } = startSession(fresh.context)
    const { write } = pipe
    // What compresses is there until the session ends, and so are its threads.
    pipe.write = (data) => {
      most = Math.max(most, threads())
      return write(data)
    }
    for (const piece of ask(option)) pipe.send(piece)
    pipe.end()
    assert.equal((await report).outcome, 'done')
    await fresh.close()
  }
  assert.ok(most < before + 20, `${most - before} more threads than before`)
})

fault('CVE-2026-70453', () => {
  const size = 1 << 18
  const length = 128
  const md5 = (block: Uint8Array): Uint8Array => hash('md5', block, 'buffer')
  const target = Buffer.alloc(size, 0x41)
  // Blocks that differ and have one weak sum, which is that of the target everywhere: +1, -2, +1 cancel out.
  const basis = Buffer.alloc(size, 0x41)
  for (let k = 0; (k + 1) * length <= size; k++) {
    const at = k * length + (k % (length - 3))
    basis[at]! += 1
    basis[at + 1]! -= 2
    basis[at + 2]! += 1
  }
  const cost = (target: Uint8Array, basis: Uint8Array): number => {
    const source = {
      size: target.length,
      read: (into: Uint8Array, at: number) => into.set(target.subarray(at, at + into.length)),
    }
    const began = worked()
    matchBlocks(source, sumsOf(basis, length, md5), md5, false)
    return worked() - began
  }
  const unlike = (label: string): Buffer =>
    Buffer.concat(Array.from({ length: size / 64 }, (_, i) => hash('sha512', `${label} ${i}`, 'buffer')))
  const [one, other] = [unlike('target'), unlike('basis')]
  cost(one, other)
  let honest = 0
  let times = 0
  for (; honest < 50; times++) honest += cost(one, other)
  const ratio = cost(target, basis) / (honest / times)
  assert.ok(ratio < 60, `${ratio.toFixed(0)} times what an honest search costs`)
})

fault('CVE-2026-70452', () => {
  // A name cannot be in a rule: one that does not resolve would keep nobody out.
  for (const name of [
    'attacker.example',
    'no-such-host.invalid',
    '.example.org',
    '@netgroup',
    '192.0.2.1.example',
  ])
    assert.match(String(whyNoNetwork(name)), /names are not taken/, name)
  // And whose address cannot be found out passes no rule that there is.
  for (const rules of [
    { allow: [], deny: ['192.0.2.0/24'] },
    { allow: ['192.0.2.0/24'], deny: [] },
    { allow: ['0.0.0.0/0', '::/0'], deny: ['0.0.0.0/0'] },
  ])
    assert.equal(new HostRules(rules).admits(undefined), false, JSON.stringify(rules))
  // A group that nobody has defined may have anybody in it, and a source that there is none of any build.
  const laptop = { certificate: utf8Bytes('laptop-*') }
  const ofGone = [
    { group: 'gone', admitted: false },
    { ...laptop, admitted: true },
  ]
  assert.equal(mayHave({ authUsers: ofGone }), false)
  assert.equal(mayHave({ authUsers: [{ group: 'gone', admitted: true }] }), false)
  assert.equal(mayHave({ source: 'gone', authUsers: [{ ...laptop, admitted: true }] }), false)
  assert.equal(mayHave({ authUsers: [{ ...laptop, admitted: true }] }), true, 'or the test sees nothing')
})

fault('CVE-2026-70463', () => {
  // One entry, one user: what rsyncd.conf would read as several, as a pattern or as a group is refused.
  for (const entry of [
    'alice, bob',
    'alice bob',
    'alice,bob',
    'al*',
    '?',
    '[ab]',
    '@',
    'alice:rw',
    'alice:',
    'alice:deny:ro',
    '',
    ':deny',
    'alice\n',
    '#alice',
  ])
    assert.equal(typeof parseUserRule(entry), 'string', `"${entry}" is taken for a user`)
  assert.deepEqual(parseUserRule('alice'), { user: 'alice', admitted: true })
  assert.deepEqual(parseUserRule('alice:deny'), { user: 'alice', admitted: false })
  // Whoever is denied by one entry is not let in by another, wherever that stands.
  const all = { certificate: utf8Bytes('laptop-*'), admitted: true }
  const not = { certificate: utf8Bytes('laptop-7'), admitted: false }
  assert.equal(mayHave({ authUsers: [all] }), true)
  assert.equal(mayHave({ authUsers: [all, not] }), false)
  assert.equal(mayHave({ authUsers: [not, all] }), false)
})

fault('control characters', async () => {
  // Into a log, a terminal or another client's listing.
  for (const evil of ['\x1b]0;evil\x07', 'a\rb', 'm\x00n', 'x\x9b31m', '\u202egpj']) {
    const { report, output } = await say(server, [text('@RSYNCD: 31.0\n'), Buffer.from(`${evil}\n`)])
    assert.equal(report.outcome, 'refused')
    assert.doesNotMatch(report.module, /[\x00-\x1f\x7f-\x9f\u202a-\u202e]/)
    assert.doesNotMatch(output.toString('latin1'), /[\x00-\x09\x0b-\x1f\x7f]/)
  }
  const named = await say(server, [
    text(`@RSYNCD: 31.0\nm\n${nul('--server', '--sender', '-r', '.', 'm/\x1b[2J\nsession ended')}`),
    framed(NO_FILTERS, GOODBYE),
  ])
  assert.doesNotMatch(named.report.paths, /[\x00-\x1f\x7f]/)
})

const RULES: ModuleRules = {
  name: 'm',
  comment: undefined,
  list: true,
  authUsers: [],
  secretsFile: undefined,
  hosts: { allow: [], deny: [] },
  maxConnections: undefined,
  idleTimeoutMs: undefined,
  refuseOptions: [],
  include: [],
  exclude: [],
}

/** Whether rules let in who shows the certificate of laptop-7. */
function mayHave(rules: Partial<ModuleRules>): boolean {
  const policy = new Policy(
    { hosts: { allow: [], deny: [] }, modules: [{ ...RULES, ...rules }] },
    assert.fail,
  )
  return policy.visitor({ ...peerFrom('192.0.2.7', 1), devices: ['laptop-7'] }).mayHave('m')
}

/** The one address that the modules of a server are for; who connects to it in tests has another. */
const THE_ONE = '203.0.113.9'
const FOR_ONE_ADDRESS = `proxy_protocol_from = ["192.0.2.77"]
[rsync]\nlisten = "127.0.0.1:0"\n[http]\nlisten = "127.0.0.1:0"
[[module]]\nname = "*"\nhosts_allow = ["${THE_ONE}"]\n`

/** Says it all, and hears all that is answered. */
async function exchange(address: string, text: string): Promise<string> {
  const socket = connect(Number(/:(\d+)\/?$/.exec(address)![1]), '127.0.0.1')
  socket.on('error', () => {}).end(text)
  let heard = ''
  for await (const piece of socket) heard += String(piece)
  return heard
}

function sumsOf(basis: Uint8Array, blockLength: number, md5: (block: Uint8Array) => Uint8Array): BlockSums {
  const count = Math.floor(basis.length / blockLength)
  const head = { count, blockLength, strongLength: 2, remainder: 0 }
  const sums: BlockSums = { head, weak: new Uint32Array(count), strong: new Uint8Array(2 * count) }
  for (let k = 0; k < count; k++) {
    const block = basis.subarray(k * blockLength, (k + 1) * blockLength)
    sums.weak[k] = weakSum(block, 0, block.length)
    sums.strong.set(md5(block).subarray(0, 2), 2 * k)
  }
  return sums
}
