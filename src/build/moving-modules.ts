/**
 * Modules of a server that hands over to another process: who asks for one meanwhile waits, and so does who waits
 * for a build that is being fetched. Once that process serves, they are its clients; if it never does, they go on
 * here as if nothing had been.
 */
import { HandedOver } from '../errors.ts'
import { untilAborted } from '../lib/single-flight.ts'
import type { Asker, MayHave, ModuleLine, Modules, OpenModule } from '../rsync/modules.ts'

type Relay = HandedOver['relay']

export class MovingModules implements Modules {
  readonly #modules: Modules
  /** Settles when it is known whether we hand over; undefined while nobody thinks of it. */
  #moving: Promise<void> | undefined
  /** How often that was thought of. */
  #holds = 0
  #relay: Relay | undefined

  constructor(modules: Modules) {
    this.#modules = modules
  }

  /** From now on modules are not given out, until the returned function is called: with where they are had instead, if so. */
  hold(): (relay?: Relay) => void {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#moving = promise
    this.#holds++
    return (relay) => {
      this.#relay = relay
      this.#moving = undefined
      resolve()
    }
  }

  list(mayHave: MayHave, say: (line: string) => void, signal: AbortSignal): Promise<readonly ModuleLine[]> {
    return this.#modules.list(mayHave, say, signal)
  }

  ruledBy(name: string): readonly string[] {
    return this.#modules.ruledBy(name)
  }

  async open(
    name: string,
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<OpenModule> {
    for (;;) {
      while (this.#moving) await untilAborted(this.#moving, signal)
      if (this.#relay) throw new HandedOver(this.#relay)
      const holds = this.#holds
      try {
        const module = await this.#modules.open(name, asker, say, signal)
        if (this.#holds === holds) return module
        // What is held by now was told to the other process before this was.
        module.release()
      } catch (error) {
        // The fetch that it waited for was stopped for this.
        if (signal.aborted || this.#holds === holds) throw error
      }
    }
  }
}
