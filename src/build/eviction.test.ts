import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fc } from '../../test/support/property.ts'
import { type Candidate, type DepartureLedger, planEviction } from './eviction.ts'

/** Builds as sets of blobs; a blob of name "a3" has 3 bytes. */
type World = Record<string, string[]>

function ledgerOf(world: World): DepartureLedger {
  const counts = new Map<string, number>()
  for (const blobs of Object.values(world))
    for (const blob of blobs) counts.set(blob, (counts.get(blob) ?? 0) + 1)
  const size = (blob: string) => Number(blob.slice(1))
  const change = (id: string, by: number, edge: number) => {
    let bytes = 0
    for (const blob of world[id]!) {
      const count = counts.get(blob)! + by
      counts.set(blob, count)
      if (count === edge) bytes += size(blob)
    }
    return Promise.resolve(bytes)
  }
  return { leave: (id) => change(id, -1, 0) }
}

/** What is free when exactly these builds are gone. */
function freed(world: World, gone: readonly string[]): number {
  const kept = new Set(
    Object.keys(world)
      .filter((id) => !gone.includes(id))
      .flatMap((id) => world[id]!),
  )
  const all = new Set(gone.flatMap((id) => world[id]!))
  return [...all].filter((blob) => !kept.has(blob)).reduce((sum, blob) => sum + Number(blob.slice(1)), 0)
}

function candidates(world: World, marks: { sticky?: string[]; leased?: string[] } = {}): Candidate[] {
  return Object.keys(world).map((id, i) => ({
    id,
    order: i,
    sticky: marks.sticky?.includes(id) ?? false,
    leased: marks.leased?.includes(id) ?? false,
  }))
}

const WORLD: World = { old: ['a10', 's5'], middle: ['b20', 's5'], recent: ['c30'] }

const CASES: {
  name: string
  needed: number
  marks?: { sticky?: string[]; leased?: string[] }
  plan: object
}[] = [
  { name: 'nothing is needed', needed: 0, plan: { type: 'possible', evict: [], frees: 0 } },
  { name: 'the oldest is enough', needed: 10, plan: { type: 'possible', evict: ['old'], frees: 10 } },
  {
    name: 'the shared blob goes with the last of the two',
    needed: 35,
    plan: { type: 'possible', evict: ['old', 'middle'], frees: 35 },
  },
  {
    name: 'one byte more takes the next one as well',
    needed: 36,
    plan: { type: 'possible', evict: ['old', 'middle', 'recent'], frees: 65 },
  },
  {
    name: 'sticky stays',
    needed: 10,
    marks: { sticky: ['old'] },
    plan: { type: 'possible', evict: ['middle'], frees: 20 },
  },
  {
    name: 'leased stays',
    needed: 21,
    marks: { leased: ['old'] },
    plan: { type: 'possible', evict: ['middle', 'recent'], frees: 50 },
  },
  {
    name: 'all of it',
    needed: 65,
    plan: { type: 'possible', evict: ['old', 'middle', 'recent'], frees: 65 },
  },
  { name: 'more than there is', needed: 66, plan: { type: 'impossible', couldFree: 65 } },
  {
    name: 'more than may go',
    needed: 40,
    marks: { sticky: ['recent'] },
    plan: { type: 'impossible', couldFree: 35 },
  },
]
for (const { name, needed, marks, plan } of CASES) {
  test(`eviction: ${name}`, async () => {
    assert.deepEqual(await planEviction(candidates(WORLD, marks), needed, ledgerOf(WORLD)), plan)
  })
}

test('eviction: the oldest that may go, no more than it takes, and it frees what it says', async () => {
  const blob = fc.record({
    name: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
    size: fc.integer({ min: 1, max: 9 }),
  })
  const build = fc.record({
    blobs: fc.uniqueArray(
      blob.map(({ name, size }) => `${name}${size}`),
      { maxLength: 8 },
    ),
    order: fc.nat(5),
    sticky: fc.boolean(),
    leased: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(build, { maxLength: 8 }), fc.nat(120), async (builds, needed) => {
      const world: World = {}
      const list: Candidate[] = builds.map(({ blobs, ...rest }, i) => {
        world[`b${i}`] = blobs
        return { id: `b${i}`, ...rest }
      })
      const plan = await planEviction(list, needed, ledgerOf(world))
      const mayGo = list.filter(({ sticky, leased }) => !sticky && !leased).map(({ id }) => id)
      if (plan.type === 'impossible') {
        assert.equal(plan.couldFree, freed(world, mayGo))
        assert.ok(plan.couldFree < needed)
        return
      }
      assert.ok(plan.evict.every((id) => mayGo.includes(id)))
      assert.equal(plan.frees, freed(world, plan.evict))
      assert.ok(plan.frees >= needed)
      const byAge = list
        .filter(({ id }) => mayGo.includes(id))
        .sort((a, b) => a.order - b.order || (a.id < b.id ? -1 : 1))
        .map(({ id }) => id)
      assert.deepEqual(plan.evict, byAge.slice(0, plan.evict.length))
      if (plan.evict.length > 0) assert.ok(freed(world, plan.evict.slice(0, -1)) < needed, 'one went in vain')
    }),
  )
})
