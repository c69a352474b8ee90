/** Whole conversations, byte by byte: those of docs/rsync-protocol.md, section 12, and how sessions end. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, test } from 'node:test'
import { fromHex, toHex } from '../../test/support/hex.ts'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { converse, FixedModules, sessionContext, startSession } from '../../test/support/session.ts'
import { StoreError } from '../errors.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import type { Asker, OpenModule } from './modules.ts'
import { advance, NEXT, type SessionContext, type State, type Step } from './session.ts'
import type { Tree } from './tree.ts'

const hi = { mode: 0o100644, mtime: 1_700_000_000, mtimeNsec: 500_000_000, data: Buffer.from('hello\n') }
const tree = new MemoryTree({
  mode: 0o040755,
  children: { hi, sub: { mode: 0o040755, children: { x: hi } } },
})
after(() => tree.close())

const GREETING = '@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n'
const context = (changes: Partial<SessionContext> = {}) => sessionContext({ t: tree }, changes)
const nul = (...args: string[]): string => [...args, ''].map((arg) => `${arg}\0`).join('')
const line = (...args: string[]): string => [...args, ''].map((arg) => `${arg}\n`).join('')
const zeros = (count: number): string => '00'.repeat(count)

// ---------------------------------------------------------------------------------------------------

test('section 12.1: protocol 32, byte by byte', async () => {
  const { pipe, report } = startSession(context())
  const says = async (hex: string): Promise<void> => {
    const expected = fromHex(hex)
    assert.equal(toHex(await pipe.take(expected.length)), toHex(expected))
  }
  assert.equal((await pipe.take(GREETING.length)).toString(), GREETING)
  pipe.send('@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n')
  pipe.send('t\n')
  assert.equal((await pipe.take(12)).toString(), '@RSYNCD: OK\n')
  pipe.send(nul('--server', '--sender', '-logDtpre.iLsfxCIvu', '.', 't/hi'))
  // Compat flags: all that the document has but 0x40, which we do not need. Then our list of checksums.
  const names = Buffer.from('xxh128 xxh3 xxh64 md5 sha1 none')
  await says(`81be ${Buffer.from([names.length]).toString('hex')} ${toHex(names)}`)
  pipe.send(fromHex(`07 ${toHex(Buffer.from('md5 md4'))}`))
  await says('78563412')
  await says('04000028 58020000') // MSG_IO_TIMEOUT: 600 s
  pipe.send(fromHex('04000007 00000000'))
  await says(`25000007 a000 02 6869 000600 6500f153 f00065cd1d a4810000 00 00
    0000 0004726f6f74 0004726f6f74`)
  pipe.send(fromHex(`13000007 01 00a0 ${zeros(16)}`))
  await says(`31000007 01 00a0 ${zeros(16)} 06000000 68656c6c6f0a 00000000
    b1946ac92492d2347c6235b4d2611184`)
  pipe.send(fromHex('01000007 00'))
  await says('01000007 00')
  pipe.send(fromHex('03000007 000000'))
  // The document's statistics count its own bytes and milliseconds; ours stand still.
  const statistics = await pipe.take(4 + 17)
  assert.equal(toHex(statistics.subarray(0, 6)), '110000070000')
  assert.equal(toHex(statistics.subarray(12)), '000600000000000000')
  await says('01000007 00')
  pipe.send(fromHex('01000007 00'))
  const { outcome, state, figures, entries, protocol, paths } = await report
  assert.deepEqual(
    { outcome, state, figures, entries, protocol, paths },
    {
      outcome: 'done',
      state: 'closed',
      figures: {
        ...{ files: 1, newFiles: 1, newBytes: 6, matchedBytes: 0, literalBytes: 6, position: 1 },
        ...{ searched: 0, prepared: 0, reused: 0 },
        costliest: [{ name: 'hi', had: 'nothing', matchedBytes: 0, literalBytes: 6 }],
      },
      entries: 1,
      protocol: 32,
      paths: 't/hi',
    },
  )
  assert.equal(pipe.output.length, 0, 'nothing more')
})

for (const greeting of ['@RSYNCD: 29\n', '@RSYNCD: 29.0 sha512 sha256 sha1 md5 md4\n']) {
  test(`section 12.2: protocol 29, byte by byte, greeted by ${JSON.stringify(greeting)}`, async () => {
    const { pipe, report } = startSession(context())
    const says = async (hex: string): Promise<void> => {
      const expected = fromHex(hex)
      assert.equal(toHex(await pipe.take(expected.length)), toHex(expected))
    }
    assert.equal((await pipe.take(GREETING.length)).toString(), GREETING)
    pipe.send(greeting)
    pipe.send('t\n')
    assert.equal((await pipe.take(12)).toString(), '@RSYNCD: OK\n')
    pipe.send(line('--server', '--sender', '-logDtpr', '.', 't/hi'))
    await says('78563412')
    pipe.send(fromHex('00000000'))
    await says(`25000007 01 02 6869 06000000 00f15365 a4810000 00000000 00000000 00
      00000000 00000000 00000000`)
    pipe.send(fromHex(`00000000 00a0 ${zeros(16)}`))
    await says(`34000007 00000000 00a0 ${zeros(16)} 06000000 68656c6c6f0a 00000000
      b97c3bb7744614861052 1fed2c08026b`)
    pipe.send(fromHex('ffffffff'))
    await says('04000007 ffffffff')
    pipe.send(fromHex('ffffffff ffffffff'))
    // The answer to the second mark, the final mark and the statistics, here in one frame.
    const end = await pipe.take(4 + 28)
    assert.equal(toHex(end.subarray(0, 12)), '1c000007ffffffffffffffff')
    assert.equal(toHex(end.subarray(20)), '060000000000000000000000')
    pipe.send(fromHex('01000000 0020')) // a keep-alive may still come
    pipe.send(fromHex('ffffffff'))
    assert.equal((await report).outcome, 'done')
    assert.equal(pipe.output.length, 0, 'nothing more')
  })
}

// ---------------------------------------------------------------------------------------------------
// The text phase: sections 1.2 to 1.5.

const hello = '@RSYNCD: 31.0\n'
const TEXT_PHASE: readonly { name: string; input: string; output: string; outcome: string; state?: State }[] =
  [
    {
      name: 'an empty line lists the modules',
      input: `${hello}\n`,
      output: 't              \tthe module t\n@RSYNCD: EXIT\n',
      outcome: 'listed',
      state: 'closed',
    },
    {
      name: '#list does so, too',
      input: `${hello}#list\n`,
      output: 't              \tthe module t\n@RSYNCD: EXIT\n',
      outcome: 'listed',
    },
    {
      name: 'CRLF',
      input: '@RSYNCD: 31.0\r\n\r\n',
      output: 't              \tthe module t\n@RSYNCD: EXIT\n',
      outcome: 'listed',
    },
    {
      name: 'early input is passed over',
      input: `${hello}#early_input=5\n#list\n`,
      output: 't              \tthe module t\n@RSYNCD: EXIT\n',
      outcome: 'listed',
    },
    {
      name: 'early input of no length',
      input: `${hello}#early_input=0\n\n`,
      output: '@ERROR: early-input: invalid early_input length\n',
      outcome: 'peer-error',
    },
    {
      name: 'early input that is too long',
      input: `${hello}#early_input=5121\n`,
      output: '@ERROR: early-input: invalid early_input length\n',
      outcome: 'peer-error',
    },
    {
      name: 'a command that nobody knows',
      input: `${hello}#shell\x1b\n`,
      output: "@ERROR: module: Unknown command '#shell\\x1b'\n",
      outcome: 'peer-error',
      state: 'closed',
    },
    {
      name: 'a module that is none',
      input: `${hello}nothing\n`,
      output: "@ERROR: Unknown module 'nothing'\n",
      outcome: 'refused',
      state: 'closed',
    },
    {
      name: 'no greeting',
      input: 'GET / HTTP/1.1\r\n',
      output: '@ERROR: greeting: the first line is not "@RSYNCD: <version>"\n',
      outcome: 'peer-error',
      state: 'closed',
    },
    {
      name: 'a client that is too old',
      input: '@RSYNCD: 26\n',
      output: '@ERROR: greeting: protocol 26 is older than 27: rsync 2.6.0 or later is needed\n',
      outcome: 'peer-error',
    },
    {
      name: 'an endless line',
      input: 'x'.repeat(5000),
      output: '@ERROR: greeting: longer than 4096 bytes\n',
      outcome: 'peer-error',
    },
    { name: 'nothing at all', input: '', output: '', outcome: 'lost', state: 'greeting' },
    { name: 'half a greeting', input: '@RSYNC', output: '', outcome: 'lost', state: 'greeting' },
    { name: 'a greeting alone', input: hello, output: '', outcome: 'lost', state: 'module' },
    {
      name: 'a module alone',
      input: `${hello}t\n`,
      output: '@RSYNCD: OK\n',
      outcome: 'lost',
      state: 'arguments',
    },
  ]
for (const { name, input, output, outcome, state } of TEXT_PHASE) {
  test(`text phase: ${name}`, async () => {
    const talk = await converse(context(), input)
    assert.equal(talk.output.toString(), GREETING + output)
    assert.equal(talk.report.outcome, outcome)
    if (state) assert.equal(talk.report.state, state)
  })
}

test('text phase: the message of the day stands behind the greeting', async () => {
  const { output } = await converse(context({ motd: 'Hello\n@ERROR world\n\n' }), `${hello}#list\n`)
  assert.ok(output.toString().startsWith(`${GREETING}Hello\n @ERROR world\n\n`))
})

test('text phase: lines while a module is made ready, then OK; the hold is given back', async () => {
  let released = 0
  const modules = {
    list: async () => [],
    ruledBy: (name: string) => [name],
    open: async (_name: string, _asker: Asker, say: (line: string) => void): Promise<OpenModule> => {
      say('fetching 12 %')
      await new Promise((resolve) => setTimeout(resolve, 10))
      say('@ERROR would end it')
      await new Promise((resolve) => setTimeout(resolve, 10))
      return { tree, release: () => released++ }
    },
  }
  const { pipe, report } = startSession(context({ modules }))
  pipe.send(`${hello}t\n`)
  const said = `${GREETING}fetching 12 %\n @ERROR would end it\n@RSYNCD: OK\n`
  assert.equal((await pipe.take(said.length)).toString(), said)
  pipe.end()
  assert.equal((await report).outcome, 'lost')
  assert.equal(released, 1)
})

test('text phase: who leaves while it waits does not keep the module', async () => {
  let opened: AbortSignal | undefined
  const gate = Promise.withResolvers<void>()
  let released = 0
  const modules = {
    list: async () => [],
    ruledBy: (name: string) => [name],
    open: async (
      _name: string,
      _asker: Asker,
      say: (line: string) => void,
      signal: AbortSignal,
    ): Promise<OpenModule> => {
      opened = signal
      await gate.promise
      say('still at it')
      await new Promise((resolve) => setTimeout(resolve, 10))
      return { tree, release: () => released++ }
    },
  }
  const { pipe, report } = startSession(context({ modules }))
  pipe.send(`${hello}t\n`)
  while (!opened) await new Promise((resolve) => setTimeout(resolve, 1))
  pipe.destroy()
  gate.resolve()
  assert.equal((await report).outcome, 'lost')
  assert.ok(opened.aborted)
  assert.equal(released, 1)
})

// ---------------------------------------------------------------------------------------------------
// Refusals behind the setup, and what goes wrong in the middle: sections 8.11, 10.1 and 10.2.

interface Frame {
  tag: number
  payload: Buffer
}

/** Frames behind the text phase and a setup without negotiation. */
function framesOf(output: Buffer, protocol: number): Frame[] {
  const frames: Frame[] = []
  const ok = output.indexOf('@RSYNCD: OK\n') + 12
  // One byte of compat flags from 30 on, then the seed.
  for (let at = ok + (protocol >= 30 ? 1 : 0) + 4; at < output.length; ) {
    const head = output.readUInt32LE(at)
    const length = head & 0xffffff
    frames.push({ tag: (head >>> 24) - 7, payload: output.subarray(at + 4, at + 4 + length) })
    at += 4 + length
  }
  return frames
}

const start = (protocol: number, ...args: string[]): string =>
  `@RSYNCD: ${protocol}.0\nt\n${(protocol < 30 ? line : nul)('--server', ...args)}`

for (const { name, args, text, code } of [
  { name: 'an upload', args: ['-r', '.', 't/'], text: /read only/, code: 1 },
  {
    name: '--remove-source-files',
    args: ['--sender', '-r', '--remove-source-files', '.', 't/'],
    text: /--remove-source-files/,
    code: 1,
  },
  {
    name: '--copy-devices',
    args: ['--sender', '-r', '--copy-devices', '.', 't/'],
    text: /--copy-devices/,
    code: 4,
  },
  {
    name: 'a checksum that we do not have',
    args: ['--sender', '-r', '--checksum-choice=crc32', '.', 't/'],
    text: /crc32/,
    code: 4,
  },
  {
    name: '-c with a checksum that is none',
    args: ['--sender', '-rc', '--checksum-choice=md5,none', '.', 't/'],
    text: /--checksum needs a checksum/,
    code: 4,
  },
  {
    name: '--iconv, when nobody knows the charset of names',
    args: ['--sender', '-r', '--iconv=utf-8', '.', 't/'],
    text: /refuse --iconv/,
    code: 4,
  },
  {
    name: 'a number that is none',
    args: ['--sender', '-r', '--timeout=soon', '.', 't/'],
    text: /^ERROR: --timeout needs a whole number/,
    code: 1,
  },
  {
    name: 'a codec that we do not have',
    args: ['--sender', '-r', '--compress-choice=lzo', '.', 't/'],
    text: /lzo/,
    code: 4,
  },
]) {
  for (const protocol of [27, 29, 30, 31, 32]) {
    test(`refused at ${protocol}: ${name}`, async () => {
      const { output, report } = await converse(context(), start(protocol, ...args))
      assert.equal(report.outcome, 'refused')
      assert.equal(report.state, 'closed')
      const frames = framesOf(output, protocol).filter(({ tag }) => tag !== 33)
      assert.match(frames[0]!.payload.toString(), text)
      if (protocol >= 31) {
        assert.deepEqual(
          frames.map(({ tag }) => tag),
          [3, 86],
        )
        assert.equal(frames[1]!.payload.readInt32LE(), code)
      } else {
        // Older clients die on other tags.
        assert.deepEqual(
          frames.map(({ tag }) => tag),
          [1],
        )
      }
    })
  }
}

test('an empty list: the client just goes', async () => {
  const filters = '04000007 00000000'
  const input = Buffer.concat([Buffer.from(start(31, '--sender', '-r', '.', 't/nothing')), fromHex(filters)])
  const { output, report } = await converse(context(), input)
  assert.equal(report.outcome, 'done')
  const frames = framesOf(output, 31)
  assert.deepEqual(
    frames.map(({ tag }) => tag),
    [33, 1, 0],
  )
  assert.match(
    frames[1]!.payload.toString(),
    /link_stat "t\/nothing" failed: No such file or directory \(2\)\n$/,
  )
  assert.equal(toHex(frames[2]!.payload), '00')
})

for (const { path, text, ioError } of [
  { path: 't/nothing', text: 'link_stat "t/nothing"', ioError: 0 },
  // What such a directory holds must not be deleted at the client's.
  { path: 't/nothing/', text: 'change_dir "t/nothing"', ioError: 1 },
  { path: 't/no/thing', text: 'change_dir "t/no"', ioError: 1 },
]) {
  test(`what is not there: ${path}`, async () => {
    const input = Buffer.concat([Buffer.from(start(29, '--sender', '-r', '.', path)), fromHex(zeros(4))])
    const { output } = await converse(context(), input)
    const frames = framesOf(output, 29)
    assert.ok(frames[0]!.payload.toString().includes(text))
    assert.equal(frames.at(-1)!.payload.readInt32LE(frames.at(-1)!.payload.length - 4), ioError)
  })

  for (const { how, options, frames } of [
    { how: 'in its end', options: ['-re.iLsf'], frames: [ioError ? '00 041001' : '00 00'] },
    // Its end has no place for it that this client knows of.
    { how: 'before it', options: ['-re.iLs'], frames: [...(ioError ? ['16 01000000'] : []), '00 00'] },
    { how: 'not at all', options: ['-re.iLs', '--ignore-errors'], frames: ['00 00'] },
  ]) {
    test(`what is not there: ${path}, told of by a list of protocol 30 ${how}`, async () => {
      const filters = fromHex('04000007 00000000')
      const input = Buffer.concat([Buffer.from(start(30, '--sender', ...options, '.', path)), filters])
      const { output } = await converse(context(), input)
      const [notice, ...rest] = framesOf(output, 30)
      assert.ok(notice!.payload.toString().includes(text))
      assert.deepEqual(
        rest.map(({ tag, payload }) => `${toHex(Uint8Array.of(tag))} ${toHex(payload)}`),
        frames,
      )
    })
  }
}

/** A tree with one rotten file. */
function rotten(how: 'open' | 'read'): Tree {
  return new Proxy(tree as Tree, {
    get(target, key) {
      if (key !== 'open') {
        const value = target[key as keyof Tree]
        return typeof value === 'function' ? value.bind(target) : value
      }
      return async (node: number) => {
        if (how === 'open') throw new StoreError('the pack is gone')
        const content = await target.open(node)
        return {
          ...content,
          size: content.size,
          read: async () => {
            throw new StoreError('the disk says no')
          },
        }
      }
    },
  })
}

const request = (ndx: string) => `13000007 ${ndx} 00a0 ${zeros(16)}`
const MARKS = '01000007 00 01000007 00 01000007 00 01000007 00 01000007 00'

test('a file that cannot be opened: told, not sent, and the next one is', async () => {
  const modules = new FixedModules({ t: rotten('open') })
  const input = Buffer.concat([
    Buffer.from(start(31, '--sender', '-r', '.', 't/')),
    fromHex(`04000007 00000000 ${request('02')} ${MARKS}`),
  ])
  const { output, report } = await converse(context({ modules }), input)
  assert.equal(report.outcome, 'done')
  assert.equal(report.figures.files, 0)
  const frames = framesOf(output, 31)
  const texts = frames.filter(({ tag }) => tag === 1)
  assert.match(texts[0]!.payload.toString(), /cannot send "hi": the pack is gone/)
  assert.equal(toHex(frames.find(({ tag }) => tag === 102)!.payload), '01000000')
  assert.equal(toHex(frames.find(({ tag }) => tag === 22)!.payload), '01000000')
  assert.equal(modules.held, 0)
})

test('a read that fails in the middle: zeros and a digest that is wrong on purpose', async () => {
  const input = Buffer.concat([
    Buffer.from(start(31, '--sender', '-r', '.', 't/hi')),
    fromHex(`04000007 00000000 ${request('01')} ${MARKS}`),
  ])
  const { output, report } = await converse(
    context({ modules: new FixedModules({ t: rotten('read') }) }),
    input,
  )
  assert.equal(report.outcome, 'done')
  const frames = framesOf(output, 31)
  assert.match(
    frames.find(({ tag }) => tag === 1)!.payload.toString(),
    /error while reading "hi": the disk says no/,
  )
  const stream = Buffer.concat(frames.filter(({ tag }) => tag === 0).map(({ payload }) => payload))
  assert.ok(stream.includes(fromHex('06000000 000000000000 00000000')), 'zeros in place of the content')
  assert.ok(
    !stream.includes(createHash('md5').update(Buffer.alloc(6)).digest()),
    'a digest that fits the zeros',
  )
  assert.ok(!stream.includes(createHash('md5').update('hello\n').digest()), 'a digest that fits the file')
})

test('a bug of ours: told without details, and the report has it', async () => {
  const modules = {
    list: async () => [],
    ruledBy: (name: string) => [name],
    open: async (): Promise<OpenModule> => {
      throw new TypeError('secret')
    },
  }
  const { output, report } = await converse(context({ modules }), `${hello}t\n`)
  assert.equal(output.toString(), `${GREETING}@ERROR: internal error: see the log of the server\n`)
  assert.equal(report.outcome, 'failed')
  assert.ok(report.error instanceof TypeError)
})

test('names with control characters are escaped in the report', async () => {
  const strange = sessionContext({ 'm\x1b[2J': tree })
  const args = nul('--server', '--sender', '-r', '.', 'm/a\nb\x07')
  const { report } = await converse(strange, `${hello}m\x1b[2J\n${args}`)
  assert.equal(report.module, 'm\\x1b[2J')
  assert.equal(report.paths, 'm/a\\nb\\x07')
})

test('a flood of paths makes no flood of log', async () => {
  const args = nul('--server', '--sender', '-r', '.', ...Array.from({ length: 5000 }, (_, i) => `t/${i}`))
  const { report } = await converse(context(), `${hello}t\n${args}`)
  assert.match(report.paths, /^t\/0 t\/1 .* t\/9 and 4990 more$/)
})

// ---------------------------------------------------------------------------------------------------
// Deadlines, with a clock that the test moves.

for (const { name, input, state } of [
  { name: 'nothing', input: '', state: 'greeting' },
  { name: 'half a greeting', input: '@RSYN', state: 'greeting' },
  { name: 'a greeting', input: hello, state: 'module' },
  { name: 'a module', input: `${hello}t\n`, state: 'arguments' },
  { name: 'half of the arguments', input: `${hello}t\n--server\0--sender\0`, state: 'arguments' },
  { name: 'arguments without filters', input: start(31, '--sender', '-r', '.', 't/'), state: 'filters' },
]) {
  test(`a handshake held open is closed by its deadline: ${name}`, async (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    let clock = 0
    const { pipe, report, session } = startSession(context({ now: () => clock }))
    pipe.send(input)
    while (session.state !== state) await new Promise((resolve) => setImmediate(resolve))
    for (let second = 0; second < 60; second++) {
      clock += 1000
      t.mock.timers.tick(1000)
    }
    assert.equal(session.state, state, 'a minute is allowed')
    clock += 1000
    t.mock.timers.tick(1000)
    assert.equal((await report).outcome, 'lost')
  })
}

test('a client that drips does not move the deadline of the handshake', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  let clock = 0
  const { pipe, report } = startSession(context({ now: () => clock }))
  for (let second = 0; second < 61; second++) {
    pipe.send('x')
    await new Promise((resolve) => setImmediate(resolve))
    clock += 1000
    t.mock.timers.tick(1000)
  }
  assert.equal((await report).outcome, 'lost')
})

/** A session in the middle of its transfer. */
async function inTransfer(t: { mock: typeof test.mock }, args: string[] = []) {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const time = { clock: 0 }
  const { pipe, report, session } = startSession(context({ now: () => time.clock }))
  pipe.send(start(31, '--sender', '-r', ...args, '.', 't/'))
  pipe.send(fromHex('04000007 00000000'))
  while (session.state !== 'transfer') await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setImmediate(resolve))
  const pass = async (seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second++) {
      time.clock += 1000
      t.mock.timers.tick(1000)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { pipe, report, session, pass }
}

test('a client that says nothing in its transfer is closed when it was idle too long', async (t) => {
  const { pipe, report, session, pass } = await inTransfer(t)
  await pipe.take(pipe.output.length)
  await pass(600)
  assert.equal(session.state, 'transfer', 'ten minutes are allowed')
  const keepAlives = pipe.output
  assert.ok(keepAlives.length >= 4 * 15, 'it was told that we are alive')
  assert.equal(toHex(keepAlives).replaceAll('00000007', ''), '')
  await pass(2)
  assert.equal((await report).outcome, 'lost')
})

test('any sign of life begins the time anew', async (t) => {
  const { pipe, report, session, pass } = await inTransfer(t)
  for (let i = 0; i < 3; i++) {
    await pass(500)
    pipe.send(fromHex('00000007'))
    await pass(1)
  }
  assert.equal(session.state, 'transfer')
  pipe.end()
  assert.equal((await report).outcome, 'lost')
})

test('a client with --timeout gets an empty frame in half of it', async (t) => {
  const { pipe, pass, report } = await inTransfer(t, ['--timeout=10'])
  await pipe.take(pipe.output.length)
  await pass(21)
  const count = pipe.output.length / 4
  assert.ok(count >= 4 && count <= 6, `${count} empty frames in 21 s`)
  pipe.end()
  await report
})

test('a client that is gone while its list is worked out: an empty frame tells us', {
  timeout: 60_000,
}, async (t) => {
  // Nothing in it is ever listed, so that nothing but the client's end ends the walk.
  class Endless extends MemoryTree {
    override childCount = (): number => Number.MAX_SAFE_INTEGER
    override mode = (node: number): number => (node === 0 ? 0o040755 : 0o100644)
    override name = (): ByteString => ascii('x')
  }
  t.mock.timers.enable({ apis: ['setInterval'] })
  const endless = new Endless({ mode: 0o040755, children: {} })
  let clock = 0
  const { pipe, report, session } = startSession({
    ...context({ now: () => clock }),
    modules: new FixedModules({ t: endless }),
  })
  pipe.send(start(31, '--sender', '-r', '.', 't/'))
  pipe.send(fromHex('0b000007 03000000 2d202a 00000000')) // - *
  while (session.state !== 'flist') await new Promise((resolve) => setImmediate(resolve))
  const pass = async (seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second++) {
      clock += 1000
      t.mock.timers.tick(1000)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  await pipe.take(pipe.output.length)
  await pass(90)
  assert.match(toHex(pipe.output), /^(00000007){2,}$/, 'the client is told that we are alive')
  assert.equal(session.state, 'flist')
  pipe.destroy()
  await pass(31)
  const { outcome, error } = await report
  assert.equal(outcome, 'lost')
  assert.match(String(error), /broken/)
  endless.close()
})

test('a client that never reads is closed when it was idle too long', async (t) => {
  const { pipe, report, session, pass } = await inTransfer(t)
  pipe.stuck = true
  pipe.send(fromHex(request('02')))
  // Signs of life do not help it: what waits is our word.
  await pass(300)
  pipe.send(fromHex('00000007'))
  await pass(300)
  assert.equal(session.state, 'transfer')
  await pass(2)
  assert.equal((await report).outcome, 'lost')
})

// ---------------------------------------------------------------------------------------------------

test('states: forward and never back, and each can be refused', () => {
  const seen = new Set<State>()
  const visit = (state: State, trail: readonly State[]): void => {
    assert.ok(!trail.includes(state), `${trail.join(' -> ')} -> ${state}`)
    seen.add(state)
    for (const next of Object.values(NEXT[state])) visit(next, [...trail, state])
    if (state !== 'closed') assert.equal(advance(state, 'refuse'), 'closed')
  }
  visit('greeting', [])
  assert.deepEqual(seen.size, Object.keys(NEXT).length)
  assert.throws(() => advance('closed', 'hello' as Step), /can't go on/)
})
