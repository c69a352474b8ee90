/**
 * One owner at a time, whatever happens: a second process is refused and told who holds the directory, and
 * the end of the first frees it, however it ends and whoever has its pid by then.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { StoreError, StoreLocked } from '../../src/errors.ts'
import { type DiskNow, realDisk } from '../../src/lib/disk.ts'
import { lockStore } from '../../src/store/lock.ts'
import { systemError } from '../support/memory-disk.ts'
import { temporaryDirectory } from '../support/trees.ts'

const LOCK_MODULE = new URL('../../src/store/lock.ts', import.meta.url).href

function scratch(t: TestContext): string {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  return join(directory.path, 'upserv.lock')
}

/** A process that takes the lock, says so, and stays; `then` runs in it afterwards. */
async function startOwner(
  t: TestContext,
  path: string,
  { wrapper = [], then = '' }: { wrapper?: string[]; then?: string } = {},
): Promise<ChildProcess> {
  const script = `
    import { spawn } from 'node:child_process'
    import { lockStore } from ${JSON.stringify(LOCK_MODULE)}
    lockStore(${JSON.stringify(path)})
    ${then}
    console.log('locked')
    setInterval(() => {}, 1000)`
  const [program, ...args] = [...wrapper, process.execPath, '--input-type=module', '-e', script]
  const owner = spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => owner.kill('SIGKILL'))
  await once(owner.stdout!, 'data')
  return owner
}

async function kill9(owner: ChildProcess): Promise<void> {
  owner.kill('SIGKILL')
  await once(owner, 'exit')
}

test('a second owner is refused and told who holds it; kill -9 frees it', async (t) => {
  const path = scratch(t)
  const owner = await startOwner(t, path)
  assert.throws(
    () => lockStore(path),
    (error: Error) => error instanceof StoreLocked && error.message.includes(`process ${owner.pid} on `),
  )
  await kill9(owner)
  const lock = lockStore(path)
  assert.throws(() => lockStore(path), StoreLocked)
  lock.release()
  lockStore(path).release()
})

test('programs that the owner started do not hold it when it is gone', async (t) => {
  const path = scratch(t)
  const then = `const child = spawn('sleep', ['60'], { stdio: 'ignore', detached: true })
    process.stdout.write(child.pid + ' ')`
  const owner = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { spawn } from 'node:child_process'
      import { lockStore } from ${JSON.stringify(LOCK_MODULE)}
      lockStore(${JSON.stringify(path)})
      ${then}
      setInterval(() => {}, 1000)`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  t.after(() => owner.kill('SIGKILL'))
  const [said] = await once(owner.stdout, 'data')
  const orphan = Number(String(said))
  t.after(() => process.kill(orphan, 'SIGKILL'))
  assert.throws(() => lockStore(path), StoreLocked)
  await kill9(owner)
  process.kill(orphan, 0)
  lockStore(path).release()
})

test('a lock file that names a process which lives, but is not the owner, keeps nobody out', (t) => {
  const path = scratch(t)
  // As after a reboot, or in a container: the pid is somebody's, even our own.
  for (const pid of [1, process.ppid, process.pid]) {
    writeFileSync(path, `${JSON.stringify({ pid, host: 'here', since: '2026-01-01T00:00:00.000Z' })}\n`)
    lockStore(path).release()
  }
  for (const text of ['', '{"pid": ', 'null', '[]']) {
    writeFileSync(path, text)
    lockStore(path).release()
  }
})

test('an owner in another container is an owner, and its end frees the directory', async (t) => {
  const wrapper = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']
  if (spawnSync(wrapper[0]!, [...wrapper.slice(1), 'true']).status !== 0) {
    t.skip('no right to make a pid namespace')
    return
  }
  const path = scratch(t)
  const owner = await startOwner(t, path, { wrapper })
  // It calls itself process 1, as all of them do there.
  assert.throws(
    () => lockStore(path),
    (error: Error) => error instanceof StoreLocked && error.message.includes('process 1 on '),
  )
  await kill9(owner)
  // The namespace ends with its first process, a moment later.
  for (let tries = 0; ; tries++) {
    try {
      lockStore(path).release()
      break
    } catch (error) {
      assert.ok(error instanceof StoreLocked && tries < 100, `${error}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  // And the other way round.
  const ours = lockStore(path)
  const second = spawnSync(
    wrapper[0]!,
    [
      ...wrapper.slice(1),
      process.execPath,
      '--input-type=module',
      '-e',
      `import { lockStore } from ${JSON.stringify(LOCK_MODULE)}\nlockStore(${JSON.stringify(path)})`,
    ],
    { encoding: 'utf8' },
  )
  assert.notEqual(second.status, 0)
  assert.match(second.stderr, new RegExp(`is held by process ${process.pid} on `))
  ours.release()
})

test('an owner whose directory was replaced notices that somebody else may own what is there', (t) => {
  const path = scratch(t)
  const first = lockStore(path)
  first.assertOurs()
  renameSync(path, `${path}.moved`)
  assert.throws(() => first.assertOurs(), StoreError)
  const second = lockStore(path)
  assert.throws(() => first.assertOurs(), /not the file that this process locked/)
  second.assertOurs()
  second.release()
  renameSync(`${path}.moved`, path)
  first.assertOurs()
  first.release()
})

test('a disk without a byte left keeps nobody from locking', (t) => {
  const disk: DiskNow = {
    ...realDisk.now,
    write: () => {
      throw systemError('ENOSPC', 'write', 'x')
    },
  }
  const path = scratch(t)
  const lock = lockStore(path, undefined, disk)
  assert.throws(() => lockStore(path), /is held by another process/)
  lock.release()
})
