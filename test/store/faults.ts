/** A disk that fails where a test wants it to: functions of node:fs/promises replaced for a while. */
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import type { TestContext } from 'node:test'

type FsFunction = 'open' | 'rename' | 'rm' | 'rmdir' | 'readdir' | 'unlink' | 'stat' | 'utimes'

export function systemError(code: string, syscall: string): Error {
  return Object.assign(new Error(`${code}: as the test wants it, ${syscall}`), { code, syscall })
}

/** While `work` runs, calls of `name` whose paths `when` picks fail with `code`. */
export async function failing<T>(
  t: TestContext,
  name: FsFunction,
  code: string,
  when: (...paths: string[]) => boolean,
  work: () => Promise<T>,
): Promise<T> {
  const real = fs[name] as (...args: unknown[]) => Promise<unknown>
  return await replaced(
    t,
    name,
    async (...args) => {
      if (when(...args.filter((arg) => typeof arg === 'string'))) throw systemError(code, name)
      return await real(...args)
    },
    work,
  )
}

/** While `work` runs, fsync of the files or directories that `when` picks fails with `code`. */
export async function failingSync<T>(
  t: TestContext,
  code: string,
  when: (path: string) => boolean,
  work: () => Promise<T>,
): Promise<T> {
  return await watchingSync(
    t,
    (path) => {
      if (when(path)) throw systemError(code, 'fsync')
    },
    work,
  )
}

/** While `work` runs, `onSync` is told of each file or directory that is about to be fsynced. */
export async function watchingSync<T>(
  t: TestContext,
  onSync: (path: string) => void,
  work: () => Promise<T>,
): Promise<T> {
  const real = fs.open
  return await replaced(
    t,
    'open',
    async (...args) => {
      const handle = await real(...(args as Parameters<typeof real>))
      const sync = handle.sync.bind(handle)
      handle.sync = async () => {
        onSync(String(args[0]))
        await sync()
      }
      return handle
    },
    work,
  )
}

async function replaced<T>(
  t: TestContext,
  name: FsFunction,
  replacement: (...args: unknown[]) => Promise<unknown>,
  work: () => Promise<T>,
): Promise<T> {
  const mocked = t.mock.method(fs, name, replacement as never)
  syncBuiltinESMExports()
  try {
    return await work()
  } finally {
    mocked.mock.restore()
    syncBuiltinESMExports()
  }
}
