import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Limit, Turn } from '../rsync/access.ts'
import { TurnsInLine } from './turns.ts'

const CLAIM_MS = 3000

/** Turns on a clock that the test moves, and clients that say who they are. */
function office(t: TestContext, most: number, places = 100) {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  let clock = 0
  const turns = new TurnsInLine({ most, places, now: () => clock, claimMs: CLAIM_MS })
  const never = new AbortController().signal
  const called: string[] = []
  const client = (name: string, limits: Limit[] = [], signal = never) => {
    const lines: string[] = []
    const turn = turns
      .enter(limits, (line) => lines.push(line), signal)
      .then((turn) => {
        called.push(name)
        return turn
      })
    turn.catch(() => {})
    return { lines, turn }
  }
  /** One that has done its part. */
  const inside = async (name: string, limits: Limit[] = []): Promise<Turn> => {
    const turn = await client(name, limits).turn
    await turn.begin(never)
    return turn
  }
  const pass = async (ms: number): Promise<void> => {
    clock += ms
    t.mock.timers.tick(ms)
    await nextTurn()
  }
  return { turns, client, inside, called, pass, never }
}

test('turns: so many at once; the others are called up in the order in which they came', async (t) => {
  const { client, inside, called, turns } = office(t, 2)
  const a = await inside('a')
  const b = await inside('b')
  const waiting = ['c', 'd', 'e'].map((name) => client(name))
  await nextTurn()
  assert.deepEqual(called, ['a', 'b'])
  assert.equal(turns.waiting, 3)
  b.leave()
  b.leave() // twice is once
  const c = await waiting[0]!.turn
  await nextTurn()
  assert.deepEqual(called, ['a', 'b', 'c'])
  a.leave()
  c.leave()
  await Promise.all(waiting.map(({ turn }) => turn))
  assert.deepEqual(called, ['a', 'b', 'c', 'd', 'e'])
  assert.equal(turns.waiting, 0)
})

test('turns: who waits hears its place at once and every two seconds, and an estimate once there is one', async (t) => {
  const { client, inside, pass } = office(t, 2)
  const a = await inside('a')
  const b = await inside('b')
  await pass(1000)
  const c = client('c')
  const d = client('d')
  assert.deepEqual(c.lines, [
    'please wait: all 2 places are taken; you are number 1 in line, no estimate yet',
  ])
  assert.match(d.lines[0]!, /number 2 in line, no estimate yet$/)
  await pass(2000)
  assert.equal(c.lines.length, 2)
  await pass(57_000)
  a.leave() // full for 60 s, then one place was free
  const inC = await c.turn
  await inC.begin(new AbortController().signal)
  const e = client('e')
  await pass(2000)
  assert.match(d.lines.at(-1)!, /number 1 in line, your turn comes in about 60 seconds$/)
  assert.match(e.lines.at(-1)!, /number 2 in line, your turn comes in about 2 minutes$/)
  await pass(298_000)
  assert.match(e.lines.at(-1)!, /about 5 minutes$/, 'what is late takes longer')
  b.leave()
  await d.turn
})

test('turns: past the length of the line one is turned away with the number', async (t) => {
  const { client, inside, turns } = office(t, 1, 2)
  const a = await inside('a')
  client('b')
  const c = client('c')
  await assert.rejects(client('d').turn, /^ServerBusy: max connections \(1\) reached -- try again later$/)
  assert.equal(turns.waiting, 2)
  a.leave()
  await nextTurn()
  client('e') // there is a place again
  assert.equal(turns.waiting, 2)
  void c
})

test('turns: who leaves the line frees its place at once, and the others move up', async (t) => {
  const { client, inside, turns, pass } = office(t, 1, 2)
  const a = await inside('a')
  const abort = new AbortController()
  const b = client('b', [], abort.signal)
  const c = client('c')
  assert.match(c.lines[0]!, /number 2 in line/)
  abort.abort(new Error('hung up'))
  await assert.rejects(b.turn, /hung up/)
  assert.equal(turns.waiting, 1)
  await pass(2000)
  assert.match(c.lines.at(-1)!, /number 1 in line/)
  a.leave()
  await c.turn
})

test('turns: who is called up and gone at once hands on', async (t) => {
  const { client, inside, called } = office(t, 1)
  const a = await inside('a')
  const abort = new AbortController()
  const b = client('b', [], abort.signal)
  const c = client('c')
  a.leave()
  abort.abort(new Error('too late'))
  const gone = await b.turn.catch(() => undefined)
  gone?.leave()
  await c.turn
  assert.equal(called.at(-1), 'c')
})

test('half a handshake holding a slot: a claim runs out, and who comes too late waits ahead of the line', async (t) => {
  const { client, inside, called, pass, never } = office(t, 1)
  const slow = await client('slow').turn // called up, and says no more
  const next = client('next')
  const last = client('last')
  await pass(CLAIM_MS - 1)
  assert.deepEqual(called, ['slow'])
  await pass(1)
  const nextTurnToGo = await next.turn
  await nextTurnToGo.begin(never)
  let begun = false
  const late = slow.begin(never).then(() => {
    begun = true
  })
  await pass(60_000)
  assert.equal(begun, false, 'there is only one place')
  nextTurnToGo.leave()
  await late
  assert.deepEqual(called, ['slow', 'next'], 'ahead of the line')
  slow.leave()
  ;(await last.turn).leave()
  void inside
})

test('turns: those who come too late keep their order among themselves', async (t) => {
  const { client, inside, pass, never } = office(t, 1)
  const late: Turn[] = []
  for (const name of ['a', 'b', 'c']) {
    late.push(await client(name).turn)
    await pass(CLAIM_MS)
  }
  const holder = await inside('holder')
  const waiting = client('first comer')
  const begun: string[] = []
  for (const [i, turn] of late.entries()) {
    void turn.begin(never).then(() => {
      begun.push('abc'[i]!)
      turn.leave()
    })
  }
  void waiting.turn.then(() => begun.push('first comer'))
  holder.leave()
  await pass(0)
  await waiting.turn
  assert.deepEqual(begun, ['a', 'b', 'c', 'first comer'])
})

test('turns: a line of thousands is told without keeping others waiting, and no one after it was called up', {
  timeout: 60_000,
}, async (t) => {
  const { turns, inside, pass, never } = office(t, 1, 10_000)
  const holder = await inside('holder')
  /** By what each last heard. */
  const places: number[] = []
  let isCalled = false
  let saidLate = false
  const place = (line: string): number => Number(/number (\d+) in line/.exec(line)![1])
  for (let i = 0; i < 10_000; i++) {
    const say = (line: string): void => {
      places[i] = place(line)
      if (i === 0 && isCalled) saidLate = true
      // As if each word were a write: enough of them for several slices.
      for (const until = performance.now() + 0.002; performance.now() < until; );
    }
    const turn = turns.enter([], say, never)
    if (i === 0) void turn.then(() => (isCalled = true))
    // In entering each hears its place, and nobody else does.
    if (i % 1000 === 0) await nextTurn()
  }
  assert.deepEqual(
    places,
    [...places.keys()].map((i) => i + 1),
  )
  let turnsOfLoop = 0
  await pass(2000) // the telling begins
  holder.leave() // and in its middle the first is called up
  while (places.at(-1) === 10_000 && turnsOfLoop < 10_000) {
    await nextTurn()
    turnsOfLoop++
  }
  assert.ok(turnsOfLoop > 1, 'the loop did not turn while the line was told')
  assert.equal(saidLate, false)
})

test('turns: one that began is not ended by its claim', async (t) => {
  const { client, inside, called, pass } = office(t, 1)
  const a = await inside('a')
  const b = client('b')
  await pass(10 * CLAIM_MS)
  assert.deepEqual(called, ['a'])
  a.leave()
  await b.turn
})

test('turns: who comes late and leaves while it waits takes nothing', async (t) => {
  const { client, inside, pass } = office(t, 1)
  const slow = await client('slow').turn
  await pass(CLAIM_MS)
  const b = await inside('b')
  const abort = new AbortController()
  const late = slow.begin(abort.signal)
  abort.abort(new Error('hung up'))
  await assert.rejects(late, /hung up/)
  slow.leave()
  const c = client('c')
  b.leave()
  ;(await c.turn).leave()
  await inside('d')
})

test('turns: a limit of some modules; who does not wait for it passes', async (t) => {
  const { client, inside, called } = office(t, 3)
  const limit = [{ name: 'big', most: 1 }]
  const a = await inside('a', limit)
  const b = client('b', limit)
  const c = client('c', limit)
  assert.match(b.lines[0]!, /the one place is taken; you are number 1/)
  assert.match(c.lines[0]!, /number 2/)
  await inside('d') // the server has room
  await inside('e')
  const f = client('f')
  assert.match(f.lines[0]!, /all 3 places are taken; you are number 3 in line/)
  a.leave()
  await b.turn
  await nextTurn()
  assert.deepEqual(called, ['a', 'd', 'e', 'b'])
  ;(await b.turn).leave()
  await c.turn
  ;(await c.turn).leave()
  await f.turn
  assert.deepEqual(called, ['a', 'd', 'e', 'b', 'c', 'f'])
})

test('turns: nobody is passed by whoever wants the same', async (t) => {
  const { turns, never } = office(t, 2)
  // Many come and go in an order that a small generator picks; who waits is always called up first come first.
  const order: number[] = []
  const held: Turn[] = []
  let seed = 7
  const random = (below: number): number => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31
    return seed % below
  }
  for (let n = 0; n < 500; n++) {
    void turns
      .enter([], () => {}, never)
      .then(
        async (turn) => {
          order.push(n)
          await turn.begin(never)
          held.push(turn)
        },
        () => {},
      )
    await nextTurn()
    assert.ok(held.length <= 2, 'more than two at once')
    while (held.length > 0 && random(3) > 0) {
      held.splice(random(held.length), 1)[0]!.leave()
      await nextTurn()
    }
    while (turns.waiting > 50) {
      held.pop()!.leave()
      await nextTurn()
    }
  }
  assert.deepEqual(
    order,
    [...order].sort((a, b) => a - b),
  )
  assert.ok(order.length > 400)
})

test("turns: who waits for a limit of its own address stands in nobody else's way, and so many of them wait", async (t) => {
  const { client, inside, called, turns } = office(t, 3)
  const school = [{ name: 'school', most: 1, waiting: 2, of: 'of this address' }]
  const a = await inside('a', school)
  const [b, c] = [client('b', school), client('c', school)]
  assert.match(c.lines[0]!, /^please wait: the one place of this address is taken; you are number 2 in line/)
  await assert.rejects(client('d', school).turn, {
    code: 'SERVER_BUSY',
    message: 'max connections (2) reached -- try again later (waiting in line, of this address)',
  })
  const other = await inside('other')
  assert.deepEqual(called, ['a', 'other'])
  a.leave()
  const second = await b.turn
  second.leave()
  const third = await c.turn
  third.leave()
  other.leave()
  await nextTurn()
  assert.equal(turns.waiting, 0)
})

test('turns: limits of addresses and users are forgotten when nobody names them any more', async (t) => {
  const { client, inside, turns, called } = office(t, 1)
  const of = (name: string): Limit[] => [
    { name, most: Number.POSITIVE_INFINITY, waiting: 5, of: 'of this address' },
  ]
  const first = await inside('first', of('first'))
  const leaving = new AbortController()
  const gone = client('gone', of('gone'), leaving.signal)
  leaving.abort(new Error('left'))
  await assert.rejects(gone.turn, /left/)
  for (let i = 0; i < 20; i++) client(`c${i}`, of(`c${i}`)).turn.then((turn) => turn.leave())
  await assert.doesNotReject(async () => first.leave())
  while (called.length < 21) await nextTurn()
  await nextTurn()
  // That of the server, which stays.
  assert.ok(turns.limits <= 1, String(turns.limits))
})

test('turns: a place that was given up and taken again counts, whoever was there in between', async (t) => {
  const { inside, client, pass, never } = office(t, 5)
  const one: Limit[] = [{ name: 'alice', most: 1, of: 'of this user' }]
  // Called up, but it does not come: its claim runs out, and its limit is forgotten.
  const late = await client('late', one).turn
  await pass(CLAIM_MS)
  const second = await inside('second', one)
  let began = false
  const beginning = late.begin(never).then(() => {
    began = true
  })
  await nextTurn()
  assert.equal(began, false, 'the one place is taken by the second')
  second.leave()
  await beginning
  late.leave()
})

test('turns: a crowd that claims and never comes keeps nobody out, and no more get in than may', async (t) => {
  const { client, inside, called, pass, never } = office(t, 20)
  for (let n = 0; n < 10; n++) await inside(`slow ${n}`)
  const crowd = Array.from({ length: 30 }, (_, n) => client(`crowd ${n}`))
  await pass(0)
  assert.equal(called.length, 40, 'each of ten free places is promised to a few')
  const honest = await inside('honest')
  honest.leave()

  // All of the crowd come after all: ten get in, and as others leave, the rest.
  let begun = 0
  const late = crowd.map(async ({ turn }) => {
    const mine = await turn
    await mine.begin(never)
    begun++
    return mine
  })
  await pass(0)
  assert.equal(begun, 10)
  const first = await Promise.race(late)
  first.leave()
  await pass(0)
  assert.equal(begun, 11)
})

test('turns: the last free place is promised to one alone', async (t) => {
  const { client, inside, called, pass } = office(t, 2)
  await inside('a')
  client('b')
  const c = client('c')
  await pass(0)
  assert.deepEqual(called, ['a', 'b'])
  assert.equal(c.lines.length, 1)
})
