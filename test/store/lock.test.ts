/** One owner at a time: a second process is refused, and kill -9 of the first frees the directory. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { StoreLocked } from '../../src/errors.ts'
import { lockStore } from '../../src/store/lock.ts'
import { temporaryDirectory } from '../support/trees.ts'

test('a second owner is refused and told who holds it; kill -9 frees it', async () => {
  const directory = temporaryDirectory()
  const path = join(directory.path, 'upserv.lock')
  const script = `
    import { lockStore } from ${JSON.stringify(new URL('../../src/store/lock.ts', import.meta.url).href)}
    lockStore(${JSON.stringify(path)})
    console.log('locked')
    setInterval(() => {}, 1000)`
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await once(owner.stdout, 'data')
    assert.throws(
      () => lockStore(path),
      (error: Error) => error instanceof StoreLocked && error.message.includes(`process ${owner.pid} on `),
    )
    owner.kill('SIGKILL')
    await once(owner, 'exit')
    const lock = lockStore(path)
    assert.throws(() => lockStore(path), StoreLocked)
    lock.release()
    lockStore(path).release()
  } finally {
    owner.kill('SIGKILL')
    directory.remove()
  }
})
