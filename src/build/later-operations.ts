/** The operations of a store that is still being opened: what is asked of them waits until it is. */
import type { Operations } from './operations.ts'

export function laterOperations(operations: Promise<Operations>): Operations {
  return {
    list: async () => (await operations).list(),
    status: async () => (await operations).status(),
    activity: async () => (await operations).activity(),
    timeline: async (...args) => (await operations).timeline(...args),
    history: async (...args) => (await operations).history(...args),
    changes: async (...args) => (await operations).changes(...args),
    explain: async (...args) => (await operations).explain(...args),
    forget: async (...args) => (await operations).forget(...args),
    fetchHistory: async (...args) => (await operations).fetchHistory(...args),
    forgetFetches: async (...args) => (await operations).forgetFetches(...args),
    available: async (...args) => (await operations).available(...args),
    fetch: async (...args) => (await operations).fetch(...args),
    import: async (...args) => (await operations).import(...args),
    importStick: async (...args) => (await operations).importStick(...args),
    export: async (...args) => (await operations).export(...args),
    pin: async (...args) => (await operations).pin(...args),
    unpin: async (...args) => (await operations).unpin(...args),
    remove: async (...args) => (await operations).remove(...args),
    gc: async (...args) => (await operations).gc(...args),
    verify: async (...args) => (await operations).verify(...args),
    warm: async (...args) => (await operations).warm(...args),
  }
}
