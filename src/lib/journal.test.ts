import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { encodeEntry, fieldName, Journal } from './journal.ts'
import { entryOf } from './log.ts'

/** One line for each datagram that comes. */
const RECEIVE = `use Socket; $| = 1; socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die $!; bind($s, sockaddr_un($ARGV[0])) or die $!;
while (defined recv($s, my $text, 262144, 0)) { $text =~ s/\\n/|/g; print "$text\\n" }`

test('each entry is one datagram, in order, also when they come faster than they go', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'upserv-journal-'))
  const path = join(directory, 'socket')
  const receiver = spawn('perl', ['-e', RECEIVE, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    while (!existsSync(path)) await sleep(5)
    const lines: string[] = []
    const all = Promise.withResolvers<void>()
    const many = 3000
    createInterface({ input: receiver.stdout }).on('line', (line) => {
      if (lines.push(line) === many) all.resolve()
    })
    const journal = Journal.open(path)!
    for (let n = 0; n < many; n++) {
      const fields = [['UPSERV_N', 'x'.repeat(n % 500)]] as const
      journal.write({ priority: 6, message: `entry ${n}`, fields }, () =>
        assert.fail(`entry ${n} did not go`),
      )
      // The bound on what waits in memory must not be met here.
      if (n % 100 === 0) await sleep(1)
    }
    await journal.close()
    await all.promise
    assert.deepEqual(
      lines,
      Array.from(
        { length: many },
        (_, n) => `PRIORITY=6|MESSAGE=entry ${n}|UPSERV_N=${'x'.repeat(n % 500)}|`,
      ),
    )
    let late = false
    journal.write({ priority: 6, message: 'late', fields: [] }, () => {
      late = true
    })
    assert.ok(late)
  } finally {
    receiver.kill()
    await once(receiver, 'exit')
    rmSync(directory, { recursive: true })
  }
})

test('without a perl every entry is told by other means, also those that came before that showed', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'upserv-journal-'))
  const { PATH } = process.env
  try {
    process.env.PATH = directory
    const journal = Journal.open(directory)!
    const told: number[] = []
    const write = (n: number): void =>
      journal.write({ priority: 6, message: `${n}`, fields: [] }, () => told.push(n))
    for (const n of [1, 2, 3]) write(n)
    while (told.length < 3) await sleep(1)
    assert.deepEqual(told.toSorted(), [1, 2, 3])
    write(4)
    assert.equal(told.at(-1), 4, 'at once, by now')
    await journal.close()
  } finally {
    process.env.PATH = PATH
    rmSync(directory, { recursive: true })
  }
})

test('without a journal there is none', () => {
  assert.equal(Journal.open('/nonexistent/socket'), undefined)
})

test('what a peer sent can neither begin a field nor end an entry', () => {
  const hostile = 'a\nUPSERV_BUILD=forged\n\nMESSAGE=\x1b[2J\u009b'
  const json = JSON.stringify({
    level: 40,
    time: '',
    msg: 'session ended',
    user: hostile,
    waitedMs: { build: 1 },
  })
  const entry = entryOf(json)
  assert.equal(
    encodeEntry(entry),
    'PRIORITY=4\nMESSAGE=session ended user=a?UPSERV_BUILD=forged??MESSAGE=?[2J? waitedMs={"build":1}\n' +
      'SYSLOG_IDENTIFIER=upserv\nUPSERV_USER=a?UPSERV_BUILD=forged??MESSAGE=?[2J?\nUPSERV_WAITED_MS={"build":1}\n\n',
  )
})

test('an entry is bounded, whatever it is made of', () => {
  const fields = Array.from({ length: 100 }, (_, n) => [`F${n}`, '\u{1f600}'.repeat(10_000)] as const)
  const text = encodeEntry({ priority: 3, message: '\u{1f600}'.repeat(50_000), fields })
  assert.ok(Buffer.byteLength(text) < 150_000)
  assert.ok(text.endsWith('\n\n'))
})

test('names of fields', () => {
  assert.equal(fieldName('UPSERV_', 'session'), 'UPSERV_SESSION')
  assert.equal(fieldName('UPSERV_', 'bytesOut'), 'UPSERV_BYTES_OUT')
  assert.equal(fieldName('UPSERV_', 'a b'), undefined)
  assert.equal(fieldName('', '_PID'), undefined)
})
