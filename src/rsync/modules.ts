/** What a session asks of whoever knows the modules: which there are, and the tree of one. */
import type { ByteString } from '../lib/bytes.ts'
import type { Tree } from './tree.ts'

/** A module that a client may ask for. */
export interface ModuleLine {
  name: string
  comment: string
}

/** A module's tree, held for one session. */
export interface OpenModule {
  readonly tree: Tree
  /**
   * For a module that shows others, each in a directory of its root: the name of the one whose content lies
   * there. What is hidden in that module is hidden here as well.
   */
  readonly moduleAt?: (directory: ByteString) => string
  /** Gives the hold back. Called once. */
  release(): void
}

/** Whether the client who asks may have the module of that name, as far as is known of the client. */
export type MayHave = (module: string) => boolean

/** Something that is worked for on behalf of who asks, and may cost it something. */
export interface FetchTicket {
  /** Called once, when it has ended. */
  end(how: { receivedBytes: number; absent: boolean }): void
}

/** Who asks for a module. */
export interface Asker {
  /** Whether it may have a module, as far as is known. */
  mayHave(module: string): boolean
  /** Whether it may hear what is said of the source of that name. */
  mayHearOf(source: string): boolean
  /**
   * Called before what is not held is fetched for it. To read something is one right, to have it fetched another.
   * @param modules those that it asked for: the one that it named, and what that stands for.
   * @throws an UpservError that says why not.
   */
  beginFetch(modules: readonly string[]): FetchTicket
}

/** Which modules there are. */
export interface Modules {
  /** What a listing shows to this client; `say` hands the person who waits a line of text. */
  list(mayHave: MayHave, say: (line: string) => void, signal: AbortSignal): Promise<readonly ModuleLine[]>
  /**
   * The modules whose rules a client must satisfy to have this one: itself, and what it stands for. For a
   * name that stands for nothing: itself.
   */
  ruledBy(name: string): readonly string[]
  /**
   * Gets the module ready, however long that takes; `say` hands the person who waits a line of text. The
   * caller has checked the rules of `ruledBy`; `asker` is for modules that show what others hold, and for what
   * has to be fetched.
   * @throws an UpservError whose message the client is told, behind "@ERROR: ".
   */
  open(name: string, asker: Asker, say: (line: string) => void, signal: AbortSignal): Promise<OpenModule>
}
