import assert from 'node:assert/strict'
import { test } from 'node:test'
import { QuickReads } from './quick-reads.ts'

/** Reads that take `ms` each by a clock of our own, and wait for a disk or not. */
function slowly() {
  let clock = 0
  let fromDisk = 0
  const reads = new QuickReads(
    () => clock,
    () => fromDisk,
  )
  const read = (ms: number, waits = false): string | undefined =>
    reads.try(() => {
      clock += ms
      if (waits) fromDisk++
      return 'read'
    })
  const pass = (ms: number): void => {
    clock += ms
  }
  const othersRead = (): void => {
    fromDisk++
  }
  return { read, pass, othersRead }
}

test('quick reads go on', () => {
  const { read } = slowly()
  for (let i = 0; i < 1000; i++) assert.equal(read(1), 'read')
})

test('after a read that waited for a disk none is tried for a while', () => {
  const { read, pass } = slowly()
  assert.equal(read(5, true), 'read')
  assert.equal(read(0), undefined)
  pass(1000)
  assert.equal(read(0), undefined)
  pass(1001)
  assert.equal(read(0), 'read')
})

test('a disk that is slow again whenever it is tried is tried ever more rarely', () => {
  const { read, pass } = slowly()
  const rests: number[] = []
  for (let i = 0; i < 8; i++) {
    assert.equal(read(300, true), 'read')
    let rest = 0
    for (; read(0) === undefined; rest += 100) pass(100)
    rests.push(rest / 1000)
  }
  assert.deepEqual(rests, [2, 4, 8, 16, 32, 60, 60, 60])
  // Once it was quick for a while it counts as any other.
  pass(2100)
  assert.equal(read(300, true), 'read')
  pass(2001)
  assert.equal(read(0), 'read')
})

test('a thread that was kept from the processor did not wait for a disk', () => {
  const { read } = slowly()
  for (let i = 0; i < 10; i++) assert.equal(read(30), 'read')
})

test('what takes very long time and again is not tried any more, whatever the reason', () => {
  const { read } = slowly()
  for (let i = 0; i < 3; i++) assert.equal(read(60), 'read')
  assert.equal(read(0), undefined)
})

test('on a busy machine any read may take very long now and then', () => {
  const { read } = slowly()
  for (let i = 0; i < 100; i++) assert.equal(read(i % 3 === 0 ? 1 : 60), 'read')
})

test('what others read from a disk is not taken for a read that was kept from the processor', () => {
  const { read, pass, othersRead } = slowly()
  for (let i = 0; i < 10; i++) {
    othersRead()
    pass(60)
    assert.equal(read(30), 'read')
  }
})
