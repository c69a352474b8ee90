/** Attacks on what comes before the binary phases: greeting, module name, early input, deadlines. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { HostileServer, NO_FILTERS, nul, start, testAttacks, text } from '../support/hostile.ts'
import { sessionContext, startSession } from '../support/session.ts'

testAttacks([
  {
    name: 'a greeting without end',
    says: () => [Buffer.alloc(2e6, '@')],
    outcome: 'peer-error',
    error: /greeting: longer than 4096 bytes/,
  },
  {
    name: 'a module name without end',
    says: () => [text('@RSYNCD: 31.0\n'), Buffer.alloc(2e6, 'm')],
    outcome: 'peer-error',
    error: /module: longer than 4096 bytes/,
  },
  {
    name: 'control characters in a module name',
    says: () => [text('@RSYNCD: 31.0\n\x1b]0;evil\x07\n')],
    outcome: 'refused',
  },
  {
    name: 'a module name that looks like a line of the protocol',
    says: () => [text('@RSYNCD: 31.0\n@RSYNCD: OK\n')],
    outcome: 'refused',
    holds: ({ output }) => {
      const lines = output.toString('latin1').split('\n').slice(1)
      for (const line of lines) assert.doesNotMatch(line, /^@RSYNCD: OK/, 'the client would go on')
    },
  },
  {
    name: 'early input beyond its bound',
    says: () => [text('@RSYNCD: 31.0\n#early_input=5121\n'), Buffer.alloc(6000, 'e')],
    outcome: 'peer-error',
    error: /invalid early_input length/,
  },
  {
    name: 'early input of no bytes',
    says: () => [text('@RSYNCD: 31.0\n#early_input=0\nm\n')],
    outcome: 'peer-error',
    error: /invalid early_input length/,
  },
  {
    name: 'early input of more digits than a number has',
    says: () => [text(`@RSYNCD: 31.0\n#early_input=${'9'.repeat(4000)}\nm\n`)],
    outcome: 'peer-error',
    error: /Unknown command/,
  },
  {
    name: 'early input once more',
    says: () => [text('@RSYNCD: 31.0\n#early_input=1\nx#early_input=1\nx')],
    outcome: 'peer-error',
    error: /Unknown command/,
  },
  {
    name: 'early input that is announced and never sent',
    says: () => [text('@RSYNCD: 31.0\n#early_input=5120\nx')],
    outcome: 'lost',
  },
  {
    name: 'an upload',
    says: () => [text(`@RSYNCD: 31.0\nm\n${nul('--server', '-r', '.', 'm/')}`)],
    outcome: 'refused',
    error: /read only/,
  },
  {
    name: '--remove-source-files',
    says: () => [start('-r', '--remove-source-files', '.', 'm/')],
    outcome: 'refused',
    error: /--remove-source-files/,
  },
])

// A whole conversation, a byte every so often: the deadline covers greeting, module, arguments and filters
// together, and no byte moves it.
const SLOW = Buffer.concat([start('-r', '.', 'm/'), Buffer.from('04000007', 'hex'), NO_FILTERS])
for (const secondsPerByte of [1, 5, 30]) {
  test(`attack: a byte every ${secondsPerByte} s`, async (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const server = new HostileServer()
    let clock = 0
    const context = {
      ...server.context,
      ...sessionContext({}, { now: () => clock }),
      modules: server.modules,
    }
    const { pipe, report, session } = startSession(context)
    let over = false
    void report.then(() => {
      over = true
    })
    // All but the last byte, and then silence.
    for (let at = 0; !over; at++) {
      assert.ok(clock <= 62_000, `still in "${session.state}" after ${clock / 1000} s`)
      if (at < SLOW.length - 1) pipe.send(SLOW.subarray(at, at + 1))
      for (let i = 0; i < 5; i++) await nextTurn()
      for (let second = 0; second < secondsPerByte; second++) {
        clock += 1000
        t.mock.timers.tick(1000)
      }
      for (let i = 0; i < 5; i++) await nextTurn()
    }
    assert.equal((await report).outcome, 'lost')
    assert.ok(clock > 60_000, 'a minute is allowed')
    assert.equal(server.modules.held, 0)
    await server.close()
  })
}
