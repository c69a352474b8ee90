/**
 * The modules of a store that is still being opened: who asks for one waits for that, and is told so. What a
 * name is ruled by is known from the configuration, so who may not have a module is refused at once.
 */
import type { Asker, MayHave, ModuleLine, Modules, OpenModule } from '../rsync/modules.ts'
import type { Channels } from './channels.ts'

/** The first line comes after this time as well: most starts take less. */
const SAY_EVERY_MS = 1500

export class OpeningModules implements Modules {
  readonly #channels: Channels
  readonly #opening: Promise<Modules>
  #open: Modules | undefined

  /** @param opening rejects with what clients are told when the store cannot be opened. */
  constructor(channels: Channels, opening: Promise<Modules>) {
    this.#channels = channels
    this.#opening = opening
    opening.then(
      (modules) => {
        this.#open = modules
      },
      () => {},
    )
  }

  async list(
    mayHave: MayHave,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<readonly ModuleLine[]> {
    const modules = this.#open ?? (await this.#opened(say, signal))
    return modules.list(mayHave, say, signal)
  }

  ruledBy(name: string): readonly string[] {
    return this.#channels.ruledBy(name)
  }

  async open(
    name: string,
    asker: Asker,
    say: (line: string) => void,
    signal: AbortSignal,
  ): Promise<OpenModule> {
    const modules = this.#open ?? (await this.#opened(say, signal))
    return modules.open(name, asker, say, signal)
  }

  /** @throws the signal's reason, and whatever keeps the store from being opened. */
  async #opened(say: (line: string) => void, signal: AbortSignal): Promise<Modules> {
    const { promise: left, reject: leave } = Promise.withResolvers<never>()
    const onAbort = (): void => leave(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    const timer = setInterval(
      () => say('the server has just started and looks through its builds: one moment'),
      SAY_EVERY_MS,
    )
    try {
      signal.throwIfAborted()
      return await Promise.race([this.#opening, left])
    } finally {
      clearInterval(timer)
      signal.removeEventListener('abort', onAbort)
    }
  }
}
