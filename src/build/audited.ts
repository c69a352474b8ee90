/** Operations of whom every change is told: who asked for what, and what came of it. */
import { reportError } from '../errors.ts'
import type { ChangeRecord } from '../history/change-record.ts'
import type { Operations } from './operations.ts'

/** What an operation changes, from what it is asked with; undefined for one that only looks. */
const TARGETS: { [K in keyof Operations]?: (...args: Parameters<Operations[K]>) => string | undefined } = {
  forget: (query) =>
    Object.entries(query)
      .flatMap(([key, value]) => (value === undefined ? [] : `${key}=${value}`))
      .join(' '),
  forgetFetches: (query) =>
    Object.entries(query)
      .flatMap(([key, value]) => (value === undefined ? [] : `${key}=${value}`))
      .join(' '),
  fetch: (id) => `id=${id}`,
  import: (file, id) => `id=${id} file=${file}`,
  importStick: (directory) => `directory=${directory}`,
  export: (id, _have, path) => `id=${id} path=${path}`,
  pin: (id) => `id=${id}`,
  unpin: (id) => `id=${id}`,
  remove: (id) => `id=${id}`,
  gc: ({ dryRun }) => (dryRun ? undefined : ''),
  verify: (id, { repair }) => (repair ? `id=${id ?? 'all'} repair` : undefined),
  warm: ({ id }) => `id=${id}`,
}

/** @param note is told each of them once it has ended. */
export function audited(
  operations: Operations,
  actor: Pick<ChangeRecord, 'who' | 'from'>,
  note: (change: Omit<ChangeRecord, 'id' | 'at'>) => void,
): Operations {
  return new Proxy(operations, {
    get(target, key: string, receiver) {
      const value: unknown = Reflect.get(target, key, receiver)
      if (typeof value !== 'function') return value
      const targetOf = TARGETS[key as keyof Operations] as
        | ((...args: unknown[]) => string | undefined)
        | undefined
      const call = value as (...args: unknown[]) => Promise<unknown>
      if (!targetOf) return call.bind(target)
      return async (...args: unknown[]) => {
        const about = targetOf(...args)
        const tell = (result: ChangeRecord['result'], error?: unknown): void => {
          if (about === undefined) return
          const { code, message } = error === undefined ? { code: '', message: '' } : reportError(error)
          note({ ...actor, what: key, target: about.slice(0, 300), result, code, reason: message })
        }
        try {
          const done = await call.apply(target, args)
          tell('done')
          return done
        } catch (error) {
          tell('failed', error)
          throw error
        }
      }
    },
  })
}

/** Those who may use the control socket, or own the directory themselves. */
export const BY_COMMAND = { who: 'command', from: 'this machine' } as const
