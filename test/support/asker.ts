/** One who asks for modules. */
import type { Asker, MayHave } from '../../src/rsync/modules.ts'

/** May have what it is told that it may, and have everything fetched. */
export function askerWho(mayHave: MayHave): Asker {
  return { mayHave, mayHearOf: () => true, beginFetch: () => ({ end: () => {} }) }
}

/** May have everything. */
export const ANYBODY = askerWho(() => true)
