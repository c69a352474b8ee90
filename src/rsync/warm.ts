/**
 * Warming: what devices are going to ask for is worked out before the first of them does. We play the device:
 * it has one build and wants another, so it goes through the list, finds what differs, and sends the sums of
 * what it has.
 */
import { StoreError } from '../errors.ts'
import { eachAtOnce } from '../lib/at-once.ts'
import type { ByteString } from '../lib/bytes.ts'
import { isDirectoryMode, isRegularMode } from '../lib/file-mode.ts'
import { Pacer } from '../lib/pacer.ts'
import { type Answers, type Manner, mannerOf, type Prepared, type Squeeze } from './answers.ts'
import type { CodecName } from './codecs.ts'
import type { Derived } from './derived.ts'
import type { Lists, PreparedList } from './lists.ts'
import { findSources, lookup } from './paths.ts'
import { blockSumRule } from './setup.ts'
import { type StockVisit, stockSumHead } from './stock-clients.ts'
import type { Tree } from './tree.ts'

/** Files under way at a time: one is searched while another is compressed. */
const AT_ONCE = 3

/** Something that a device asks: each question once, however many files it is asked for. */
export interface DeviceQuestion {
  readonly node: number
  /** Of the old tree: what the device has under that name. -1 for nothing that it could use. */
  readonly basis: number
  /** How many files a device with -H asks it for. 0: only others do, or those with -c. */
  times: number
}

/** What lies between two builds. */
export interface Update {
  readonly from: Tree
  readonly to: Tree
  readonly questions: readonly DeviceQuestion[]
}

/**
 * What a device that has `from` asks for when it wants `to`: whatever is new, or differs in size or time (rsync's
 * quick check) or, for those with -c, in content.
 *
 * Of the names of one hard-linked file a client with -H asks for one, and one without for all.
 * @param path of the directory that devices sync, in both trees.
 */
export async function planUpdate(
  from: Tree,
  to: Tree,
  path: ByteString,
  signal: AbortSignal,
): Promise<Update> {
  const questions = new Map<string, DeviceQuestion>()
  /** What is asked for each hard-linked file: for the first name that the device has, else for the first. */
  const groups = new Map<number, { question: DeviceQuestion | undefined; exists: boolean }>()
  const pacer = new Pacer(signal)
  const waiting = [{ node: await lookup(to, path, false), old: await lookup(from, path, false) }]
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const first = to.firstChild(next.node)
    const directories: typeof waiting = []
    for (let node = first; node < first + to.childCount(next.node); node++) {
      if (pacer.due) await pacer.rest()
      const old = childOf(from, next.old, to.name(node))
      if (isDirectoryMode(to.mode(node))) directories.push({ node, old })
      if (!isRegularMode(to.mode(node))) continue
      const basis = old >= 0 && isRegularMode(from.mode(old)) ? old : -1
      const asks = basis < 0 || !passesQuickCheck(from, basis, to, node)
      let question: DeviceQuestion | undefined
      if (asks || from.contentKey(basis) !== to.contentKey(node)) {
        const key = `${to.contentKey(node)}:${basis < 0 ? '' : from.contentKey(basis)}`
        question = questions.get(key) ?? { node, basis, times: 0 }
        questions.set(key, question)
      }
      const asked = asks ? question : undefined
      const group = to.linkGroup(node)
      const known = group === 0 ? undefined : groups.get(group)
      if (group === 0) {
        if (asked) asked.times++
      } else if (!known || (!known.exists && basis >= 0)) {
        groups.set(group, { question: asked, exists: basis >= 0 })
      }
    }
    // In the order of the list, so that the name asked for first is met first.
    waiting.push(...directories.reverse())
  }
  for (const { question } of groups.values()) if (question) question.times++
  return { from, to, questions: [...questions.values()] }
}

/** Whole seconds: nanoseconds only count for clients with a negative --modify-window. */
function passesQuickCheck(from: Tree, old: number, to: Tree, node: number): boolean {
  return from.size(old) === to.size(node) && from.mtime(old) === to.mtime(node)
}

function childOf(tree: Tree, directory: number, name: ByteString): number {
  return directory >= 0 && isDirectoryMode(tree.mode(directory)) ? tree.child(directory, name) : -1
}

/** Where things are worked out. */
export interface Kitchen {
  readonly derived: Derived
  readonly answers: Answers
  readonly lists: Lists
  /** Compresses as well as can be, where nobody else needs the processor. */
  readonly best: (codec: CodecName) => Squeeze
  readonly checksumSeed: number
}

/** Gets a list ready, as clients of this kind are sent it. */
export function warmList(
  { lists }: Kitchen,
  tree: Tree,
  module: ByteString,
  { options, agreement }: StockVisit,
  signal: AbortSignal,
): Promise<PreparedList> {
  const { paths, relative, secluded, recurse } = options
  const sources = () =>
    findSources(tree, { module, paths, relative, secluded, directoriesSent: recurse }, signal)
  return lists.prepare({ tree, module, options, rules: [], agreement, sources }, signal)
}

export interface AnswersRequest {
  readonly update: Update
  /** Of clients whose sums are made by one rule: what else they agreed on. */
  readonly visits: readonly StockVisit[]
  /** Compress quickly: the refiner goes on later. */
  readonly quick: boolean
  /** Told of each question, with what became of it for each visit; undefined when its content can't be read. */
  readonly onDone: (question: DeviceQuestion, prepared: readonly Prepared[] | undefined) => void
  /** Waited for after something was worked on for so long: clients come first. */
  readonly pause: (workedMs: number) => Promise<void>
}

/** Gets everything ready that such clients ask on their way from one build to the other. */
export async function warmAnswers(
  kitchen: Kitchen,
  { update, visits, quick, onDone, pause }: AnswersRequest,
  signal: AbortSignal,
): Promise<void> {
  const manners = visits.map(({ agreement }): Manner => {
    const { codec } = agreement
    return mannerOf(blockSumRule(agreement), false, codec && { codec, level: undefined, effort: 'normal' })
  })
  const { from, to, questions } = update
  const best = quick ? undefined : kitchen.best
  await eachAtOnce(questions, AT_ONCE, async (question) => {
    signal.throwIfAborted()
    const began = performance.now()
    const { node, basis } = question
    let prepared: Prepared[] | undefined
    try {
      const sums = await sumsOf(kitchen.derived, from, basis, visits[0]!, signal)
      prepared = await kitchen.answers.prepare({ tree: to, node, sums }, manners, best, signal)
      const { transferDigest, seed } = visits[0]!.agreement
      await kitchen.derived.digest(to, node, transferDigest, seed, signal)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      // Whose content it was is not known.
      to.suspect?.(node)
      if (basis >= 0) from.suspect?.(basis)
    }
    onDone(question, prepared)
    await pause(performance.now() - began)
  })
}

/** What the device sends of what it has. */
async function sumsOf(
  derived: Derived,
  from: Tree,
  basis: number,
  { agreement }: StockVisit,
  signal: AbortSignal,
) {
  const { protocol, transferDigest } = agreement
  const head = basis < 0 ? undefined : stockSumHead(from.size(basis), protocol, transferDigest)
  if (!head) return undefined
  return { head, bytes: await derived.blockSums(from, basis, head, blockSumRule(agreement), signal) }
}
