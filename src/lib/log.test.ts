import assert from 'node:assert/strict'
import { test } from 'node:test'
import { forJournal, readable } from './log.ts'

const line = (level: number, more: object): string =>
  `${JSON.stringify({ level, time: '2026-11-29T12:01:33.000Z', msg: 'session ended', ...more })}\n`

test('a line for people, and for the journal with its priority', () => {
  const json = line(40, { peer: '192.0.2.1:4000', waitedMs: { build: 1 } })
  assert.equal(readable(json), '12:01:33 warn  session ended peer=192.0.2.1:4000 waitedMs={"build":1}\n')
  assert.equal(forJournal(json), '<4>session ended peer=192.0.2.1:4000 waitedMs={"build":1}\n')
})

test('what a peer sent neither begins a line nor drives a terminal', () => {
  const json = line(30, { user: 'a\n<0>forged\x1b[2J\u009b' })
  assert.equal(readable(json), '12:01:33 info  session ended user=a?<0>forged?[2J?\n')
  assert.equal(forJournal(json), '<6>session ended user=a?<0>forged?[2J?\n')
})
