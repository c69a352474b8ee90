/** Ids of builds, and the modules that stand for them. */
import { CommandError } from '../errors.ts'

/** Letters, digits, `.`, `_` and `-`, as in `802`, `joyride-2230`, `13.2.0_xo4-13`. */
const BUILD_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/
const BUILD_PREFIX = 'build-'
const CHANNEL_PREFIX = 'channel-'
/** What an id may be, for messages. */
export const BUILD_ID_RULE =
  'An id has up to 100 letters, digits, dots, dashes and underscores, and begins with a letter or digit.'

export function isBuildId(text: string): boolean {
  return BUILD_ID.test(text)
}

/** In the order that a person would give them: 9 before 10. */
export function compareIds(a: string, b: string): number {
  return COLLATOR.compare(a, b)
}

/** The id of the build that the module holds, or undefined when it is none of a build. */
export function idOfModule(module: string): string | undefined {
  return nameBehind(BUILD_PREFIX, module)
}

export function moduleOf(id: string): string {
  return BUILD_PREFIX + id
}

/** The channel that the module stands for, or undefined when it is none of a channel. Named as builds are. */
export function channelOfModule(module: string): string | undefined {
  return nameBehind(CHANNEL_PREFIX, module)
}

export function moduleOfChannel(name: string): string {
  return CHANNEL_PREFIX + name
}

function nameBehind(prefix: string, module: string): string | undefined {
  const name = module.startsWith(prefix) ? module.slice(prefix.length) : ''
  return isBuildId(name) ? name : undefined
}

const COLLATOR = new Intl.Collator('en', { numeric: true })

/** An id as an operator typed it. @throws CommandError */
export function checkBuildId(text: string): string {
  if (isBuildId(text)) return text
  throw new CommandError(`"${text}" is no build id`, { hint: BUILD_ID_RULE })
}
