import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Store } from '../store/store.ts'
import { Catalog } from './catalog.ts'

/** A catalog of a store that holds this build, and whose removals end when they are told to. */
function setUp(id: string) {
  const held = new Set([id])
  const removals: (() => void)[] = []
  const store: Pick<Store, 'has' | 'remove'> = {
    has: (one) => held.has(one),
    remove: async (one) => {
      await new Promise<void>((resolve) => removals.push(resolve))
      held.delete(one)
    },
  }
  return { catalog: new Catalog(store as Store), removals }
}

test('who asks for a removal that is under way hears when it has gone', async () => {
  const { catalog, removals } = setUp('802')
  const both = Promise.all([catalog.removeUnleased('802'), catalog.removeUnleased('802')])
  assert.equal(catalog.lease('802'), undefined)
  removals[0]!()
  assert.deepEqual(await both, [true, true])
  assert.equal(removals.length, 1)
})

test('a build that another one takes the place of was not removed', async () => {
  const { catalog, removals } = setUp('802')
  let removing: Promise<unknown> | undefined
  await catalog.replacing('802', async (mayReplace) => {
    assert.ok(mayReplace())
    removing = Promise.all([
      catalog.removeUnleased('802'),
      assert.rejects(catalog.remove('802'), { message: 'build 802 is in use' }),
    ])
  })
  assert.deepEqual(await removing, [false, undefined])
  assert.equal(removals.length, 0)
  assert.ok(catalog.lease('802'))
})
