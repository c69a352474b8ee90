import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ANYBODY } from '../../test/support/asker.ts'
import { MemoryDisk } from '../../test/support/memory-disk.ts'
import { FixedModules } from '../../test/support/session.ts'
import { StoreError } from '../errors.ts'
import type { Modules } from '../rsync/modules.ts'
import { Channels } from './channels.ts'
import { OpeningModules } from './opening-modules.ts'

const all = () => true
const silent = () => {}
const { signal } = new AbortController()

async function channels(): Promise<Channels> {
  return Channels.open({ stable: '802' }, new MemoryDisk(), '/channels.json', silent)
}

test('a store that cannot be opened is what everybody hears of, and rules hold all the same', async () => {
  const opening = Promise.withResolvers<Modules>()
  const modules = new OpeningModules(await channels(), opening.promise)
  assert.deepEqual(modules.ruledBy('channel-stable'), ['channel-stable', 'build-802'])
  const waiting = [modules.list(all, silent, signal), modules.open('build-802', ANYBODY, silent, signal)]
  opening.reject(new StoreError('/data/packs: input/output error'))
  for (const one of [...waiting, modules.list(all, silent, signal)])
    await assert.rejects(one, { code: 'STORE_FAILED', message: /input\/output error/ })
})

test('who leaves does not wait on, whoever stays gets the module', async () => {
  const opening = Promise.withResolvers<Modules>()
  const modules = new OpeningModules(await channels(), opening.promise)
  const abort = new AbortController()
  const leaving = modules.open('build-802', ANYBODY, silent, abort.signal)
  const staying = modules.list(all, silent, signal)
  abort.abort(new Error('the client left'))
  await assert.rejects(leaving, /the client left/)
  await assert.rejects(modules.open('build-802', ANYBODY, silent, abort.signal), /the client left/)
  opening.resolve(new FixedModules({}))
  assert.deepEqual(await staying, [])
})
