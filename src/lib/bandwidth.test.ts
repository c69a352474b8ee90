/** Rates, and that who shares one gets the same of it, whatever is sent at a time. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import fc from 'fast-check'
import { Bandwidth, type BandwidthLimits, paced, type Share } from './bandwidth.ts'

/** A world whose clock and timers are the test's own: an hour in it takes milliseconds. */
function world(t: TestContext, limits: BandwidthLimits) {
  const clock = { ms: 0 }
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const bandwidth = new Bandwidth(limits, () => clock.ms)
  /** Somebody who always has something to send, a piece after the other. */
  const sender = (source: string, pieceOf: () => number, network = 'n') => {
    const share = bandwidth.join({ source, network })
    const state = { share, sent: 0, stopped: false }
    const go = async (): Promise<void> => {
      while (!state.stopped) {
        const bytes = Math.min(pieceOf(), share.pieceSize)
        const room = share.take(bytes)
        if (room) await room
        else await Promise.resolve()
        state.sent += bytes
      }
    }
    void go()
    return state
  }
  const run = async (ms: number): Promise<void> => {
    for (let at = 0; at < ms; at += 2) {
      clock.ms += 2
      t.mock.timers.tick(2)
      await nextTurn()
    }
  }
  return { bandwidth, sender, run, clock }
}

test('bandwidth: without rates nobody waits, and nothing is counted', () => {
  const bandwidth = new Bandwidth()
  const share = bandwidth.join({ source: 'a', network: 'n' })
  assert.equal(bandwidth.isLimited, false)
  assert.equal(share.take(1e12), undefined)
  assert.equal(share.pieceSize, Number.POSITIVE_INFINITY)
  assert.equal(share.clock, 0)
  share.leave()
  assert.deepEqual([bandwidth.sources, bandwidth.waiting], [0, 0])
})

test('bandwidth: all who want to send share a rate equally, whatever the size of their pieces', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 50, max: 200_000 }), { minLength: 2, maxLength: 8 }),
      fc.integer({ min: 200_000, max: 20_000_000 }),
      async (sizes, rate) => {
        t.mock.timers.reset()
        const { sender, run } = world(t, { all: rate })
        // Tiny pieces at a high rate are many turns of the loop, which is not what is looked at here.
        const least = rate / 2000
        const senders = sizes.map((size, i) => sender(`s${i % 3}`, () => Math.max(size, least)))
        await run(2000)
        const sent = senders.map((one) => one.sent)
        for (const one of senders) one.stopped = true
        const total = sent.reduce((sum, bytes) => sum + bytes, 0)
        assert.ok(total <= rate * 2.4, `${total} of ${rate * 2}`)
        assert.ok(total >= rate * 1.6, `${total} of ${rate * 2}`)
        for (const bytes of sent) {
          const fair = total / sent.length
          assert.ok(bytes > fair * 0.8 && bytes < fair * 1.2, `${bytes} where ${fair} is fair, of ${sent}`)
        }
      },
    ),
    { numRuns: 25 },
  )
})

test('bandwidth: sources are held to theirs, and what one cannot use is there for the others', async (t) => {
  const { sender, run } = world(t, { all: 1_000_000, perSource: 400_000 })
  const crowd = Array.from({ length: 8 }, () => sender('school', () => 5000))
  const [one, two] = [sender('b', () => 5000), sender('c', () => 50_000)]
  await run(4000)
  const sum = (all: readonly { sent: number }[]): number => all.reduce((total, { sent }) => total + sent, 0)
  // Ten want a tenth each: the crowd gets its 400 kB/s at most, and the others what is left of it, up to theirs.
  const [school, b, c] = [sum(crowd) / 4, one.sent / 4, two.sent / 4]
  assert.ok(school <= 440_000 && school >= 340_000, `the school got ${school}`)
  for (const alone of [b, c]) assert.ok(alone <= 440_000 && alone >= 250_000, `one alone got ${alone}`)
  assert.ok(school + b + c <= 1_100_000 && school + b + c >= 850_000)
  for (const { sent } of crowd) assert.ok(sent / 4 > school / 8 / 1.3 && sent / 4 < (school / 8) * 1.3)
})

test('bandwidth: addresses of one network together are held to its rate', async (t) => {
  const { bandwidth, sender, run } = world(t, { perNetwork: 300_000 })
  const crowd = Array.from({ length: 6 }, (_, i) => sender(`c${i}`, () => 5000, 'crowded'))
  const alone = sender('b', () => 5000, 'another')
  await run(3000)
  const together = crowd.reduce((total, { sent }) => total + sent, 0) / 3
  assert.ok(together >= 270_000 && together <= 330_000, `the crowd got ${together}`)
  assert.ok(alone.sent / 3 >= 270_000 && alone.sent / 3 <= 330_000, `one alone got ${alone.sent / 3}`)
  for (const one of [...crowd, alone]) {
    one.stopped = true
    one.share.leave()
  }
  assert.deepEqual([bandwidth.sources, bandwidth.networks], [0, 0])
})

test('bandwidth: a rate for each session, of whom none is in the way of another', async (t) => {
  const { sender, run } = world(t, { perSession: 100_000 })
  const senders = Array.from({ length: 5 }, (_, i) => sender('a', () => 1000 * (i + 1)))
  await run(3000)
  for (const { sent } of senders) assert.ok(sent > 240_000 && sent < 360_000, String(sent))
})

test('bandwidth: who was idle has nothing saved up', async (t) => {
  const { sender, run } = world(t, { all: 100_000 })
  const first = sender('a', () => 2000)
  await run(5000)
  const before = first.sent
  const second = sender('b', () => 2000)
  await run(2000)
  const [a, b] = [first.sent - before, second.sent]
  assert.ok(a > b * 0.8 && b > a * 0.8, `${a} and ${b}`)
})

test('bandwidth: other rates hold for who waits; without any, nobody does', async (t) => {
  const { bandwidth, sender, run } = world(t, { all: 1000 })
  const one = sender('a', () => 4000)
  await run(100)
  assert.equal(bandwidth.waiting, 1)
  const before = one.sent
  bandwidth.change({ all: 1_000_000 })
  await run(1000)
  assert.ok(one.sent - before > 500_000, String(one.sent - before))
  one.stopped = true
  bandwidth.change({})
  await run(10)
  assert.equal(bandwidth.waiting, 0)
})

test('bandwidth: who waited when rates ended is held to those that come again', async (t) => {
  const { bandwidth, run } = world(t, { all: 1000 })
  const share = bandwidth.join({ source: 'a', network: 'n' })
  share.take(100_000)
  const waited = share.take(4000)
  assert.ok(waited)
  bandwidth.change({})
  await waited
  bandwidth.change({ all: 1000 })
  share.take(100_000)
  assert.ok(share.take(100_000), 'it has nothing saved up')
  share.leave()
  await run(10)
  assert.deepEqual([bandwidth.waiting, share.prepaid], [0, 0])
})

test('bandwidth: who leaves while it waits is let go, and nothing of it stays', async (t) => {
  const { bandwidth, sender, run } = world(t, { all: 1000, perSource: 500 })
  const one = sender('a', () => 4000)
  await run(50)
  one.stopped = true
  one.share.leave()
  await run(10)
  assert.deepEqual([bandwidth.waiting, bandwidth.sources], [0, 0])
})

test('bandwidth: pieces are small where the rate is, and bytes come through as they are', async () => {
  const bandwidth = new Bandwidth({ all: 50_000_000 })
  const share: Share = bandwidth.join({ source: 'a', network: 'n' })
  const source = async function* () {
    yield Buffer.alloc(5_000_000, 1)
    yield Buffer.alloc(0)
    yield Buffer.alloc(7, 2)
  }
  const pieces: Uint8Array[] = []
  for await (const piece of paced(source(), share)) pieces.push(piece)
  assert.ok(pieces.every(({ length }) => length <= 256 * 1024))
  assert.deepEqual(Buffer.concat(pieces), Buffer.concat([Buffer.alloc(5_000_000, 1), Buffer.alloc(7, 2)]))
  bandwidth.change({ all: 1000 })
  assert.equal(share.pieceSize, 2048)
})
