/**
 * What a store must hold, kept beside a real one: a few sets of ids. `Keeper` does something to the store
 * and notes what was promised for it; `assertKeeps` compares every byte of a store with what was noted.
 */
import assert from 'node:assert/strict'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { StoreError } from '../../src/errors.ts'
import { generateContents } from '../../src/store/contents.ts'
import { Store, type StoreOptions } from '../../src/store/store.ts'
import type { MemoryDisk } from './memory-disk.ts'
import { publishBuild, readBuild, type TestEntry } from './trees.ts'

/** Nothing above it exists when the first store is opened. */
export const DATA = '/srv/upserv/data'

const file = (path: string, content: string): TestEntry => ({ path, content })

/** They share blobs with one another, so that packs are shared and become partly dead. */
export const BUILDS: Readonly<Record<string, readonly TestEntry[]>> = {
  a: [file('shared', 'in a and b'), file('a', 'a'.repeat(3000)), file('all', 'in all of them')],
  b: [file('shared', 'in a and b'), file('b', 'b'.repeat(2000)), file('all', 'in all of them')],
  c: [file('all', 'in all of them'), file('c', 'c'.repeat(900)), { path: 'empty' }],
  d: [file('a', 'a'.repeat(3000)), file('d/d', 'only in d')],
}
export const IDS = Object.keys(BUILDS)

export class Promises {
  /** Held, and said so. */
  readonly held: Set<string>
  /** On their way in or out, or in between since that failed: there or not, but never half. */
  readonly open: Set<string>
  readonly pinned: Set<string>
  /** As `open`, for pins. */
  readonly pinsOpen: Set<string>
  /** Said to be damaged, with what was said. */
  readonly damaged: Map<string, string>
  /** Something of it has rotted, which nobody has found yet; or it is about to be made whole. */
  readonly rotting: Set<string>

  constructor(from?: Promises) {
    this.held = new Set(from?.held)
    this.open = new Set(from?.open)
    this.pinned = new Set(from?.pinned)
    this.pinsOpen = new Set(from?.pinsOpen)
    this.damaged = new Map(from?.damaged)
    this.rotting = new Set(from?.rotting)
  }

  toString(): string {
    const { held, open, pinned, pinsOpen, damaged, rotting } = this
    return JSON.stringify([held, open, pinned, pinsOpen, damaged, rotting].map((each) => [...each].sort()))
  }
}

/** Works on a store as the server does, and notes what it may count on afterwards. */
export class Keeper {
  readonly store: Store
  readonly promises: Promises

  constructor(store: Store, promises: Promises) {
    this.store = store
    this.promises = promises
  }

  /** After a start: what is there is there to stay, what is not has gone for good. (Not so pins.) */
  settle(): void {
    const { held, open } = this.promises
    for (const id of this.store.ids()) held.add(id)
    open.clear()
  }

  async put(id: string): Promise<void> {
    const { held, open } = this.promises
    open.add(id)
    await publishBuild(this.store, id, BUILDS[id]!)
    open.delete(id)
    held.add(id)
  }

  async remove(id: string): Promise<void> {
    const { held, open, pinned, pinsOpen } = this.promises
    held.delete(id)
    open.add(id)
    if (pinned.delete(id)) pinsOpen.add(id)
    try {
      await this.store.remove(id)
    } catch (error) {
      // It has not happened, then, and must not happen by itself.
      if (this.store.has(id)) {
        held.add(id)
        open.delete(id)
      }
      throw error
    }
    // It may come back in a power cut: with all that belongs to it.
    pinsOpen.add(id)
  }

  /** Something rots, by `rot`, and is found. */
  async decay(id: string, rot: () => void): Promise<void> {
    const { damaged, rotting } = this.promises
    rotting.add(id)
    rot()
    await this.store.verify([id], () => {}, new AbortController().signal)
    const damage = await this.store.damage(id)
    assert.ok(damage, 'it was found')
    rotting.delete(id)
    damaged.set(id, damage.message)
  }

  /** As a fetch of a damaged build. */
  async repair(id: string, mayReplace = () => true): Promise<void> {
    const { held, open, damaged, rotting } = this.promises
    damaged.delete(id)
    rotting.add(id)
    // Where it has to give way to a new one there is none for a moment.
    held.delete(id)
    open.add(id)
    await publishBuild(this.store, id, BUILDS[id]!, mayReplace)
    open.delete(id)
    held.add(id)
    rotting.delete(id)
  }

  /** As `repair`, of one that somebody pins by hand just before it has to give way. */
  async repairPinned(id: string): Promise<void> {
    const { pinned, pinsOpen } = this.promises
    const { now } = this.store.disk
    pinsOpen.add(id)
    await this.repair(id, () => {
      now.close(now.open(this.store.paths.build(id).sticky, 'rwc', 0o640))
      return true
    })
    pinsOpen.delete(id)
    pinned.add(id)
  }

  async pin(id: string): Promise<void> {
    const { pinned, pinsOpen } = this.promises
    pinsOpen.add(id)
    await this.store.pin(id)
    pinsOpen.delete(id)
    pinned.add(id)
  }

  async unpin(id: string): Promise<void> {
    const { pinned, pinsOpen } = this.promises
    pinned.delete(id)
    pinsOpen.add(id)
    await this.store.unpin(id)
  }
}

/** Opens a store that has nothing to complain about, then or later. */
export async function openStore(disk: Store['disk'], options: StoreOptions = {}): Promise<Store> {
  return await Store.open(DATA, {
    onProblem: (problem: StoreError) => assert.fail(`the store complains: ${problem.message}`),
    ...options,
    disk,
  })
}

const contentsOf = new Map<string, string>()

/** Every build that was promised is there, each that is there is whole, and nothing else is. */
export async function assertKeeps(store: Store, promises: Promises): Promise<void> {
  const ids = store.ids()
  for (const id of promises.held) assert.ok(ids.includes(id), `build ${id} is lost`)
  for (const id of ids) {
    assert.ok(promises.held.has(id) || promises.open.has(id), `build ${id} came out of nowhere`)
    const damage = promises.damaged.get(id)
    if (damage !== undefined) assert.equal((await store.damage(id))?.message, damage, `damage of build ${id}`)
    else if (!promises.rotting.has(id)) await assertWhole(store, id)
    const sticky = await store.isSticky(id)
    if (promises.pinsOpen.has(id)) continue
    assert.equal(sticky, promises.pinned.has(id), `whether ${id} is pinned`)
  }
}

async function assertWhole(store: Store, id: string): Promise<void> {
  const expected = BUILDS[id]!.map(({ path, content = '' }) => [path, content] as const)
  const found = await readBuild(store, id)
  assert.deepEqual([...found].sort(), [...expected].sort(), `the files of build ${id}`)
  const contents = (await store.contents(id)).toString('latin1')
  if (!contentsOf.has(id)) {
    const chunks = await Array.fromAsync(generateContents(await store.manifest(id)))
    contentsOf.set(id, Buffer.concat(chunks).toString('latin1'))
  }
  assert.equal(contents, contentsOf.get(id), `the contents of build ${id}`)
  assert.equal((await store.info(id)).url, `test:${id}`)
}

/** What a start finds is in order, also when all that can be swept was swept; nothing is complained of. */
export async function assertIntact(disk: MemoryDisk, promises: Promises): Promise<void> {
  await withStore(disk, promises, async (store) => {
    await assertKeeps(store, promises)
    const ids = store.ids()
    await store.collect(Number.MAX_SAFE_INTEGER)
    await assertKeeps(store, promises)
    assert.deepEqual(store.ids(), ids)
    assert.equal(await store.deadBytes(), 0, 'all that is dead was swept')
    assertCounted(store, disk)
    await store.leftoversGone()
    assert.deepEqual(await disk.readdir(store.paths.incoming), [], 'incoming/ is clean')
  })
}

/** As `assertIntact`; then brings back what is missing, and lets go of something. */
export async function assertSurvived(disk: MemoryDisk, promises: Promises): Promise<void> {
  await assertIntact(disk, promises)
  await withStore(disk, promises, async (store) => {
    const keeper = new Keeper(store, new Promises(promises))
    for (const id of IDS.filter((id) => !store.has(id))) await keeper.put(id)
    await keeper.remove(IDS[0]!)
    await store.collect()
    await assertKeeps(store, keeper.promises)
    assertCounted(store, disk)
  })
}

async function withStore(
  disk: MemoryDisk,
  { damaged, rotting }: Promises,
  work: (store: Store) => Promise<void>,
): Promise<void> {
  const store = await openStore(disk, damaged.size + rotting.size > 0 ? { onProblem: () => {} } : {})
  try {
    await work(store)
  } finally {
    await store.close()
  }
  await nextTurn()
  assert.deepEqual(disk.openFiles, [], 'files were left open')
}

/** The store knows what its packs take. */
export function assertCounted(store: Store, disk: MemoryDisk): void {
  const packs = disk.now.readdir(store.paths.packs).filter(({ name }) => name.endsWith('.pack'))
  const bytes = packs.reduce((sum, { name }) => sum + disk.now.stat(store.paths.pack(name))!.size, 0)
  assert.equal(store.packs.bytes, bytes, 'bytes of packs are counted')
}
