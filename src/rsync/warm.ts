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
import { type Answers, type Asked, type Manner, mannerOf, type Prepared, type Squeeze } from './answers.ts'
import type { CodecName, FrameCompressor } from './codecs.ts'
import type { Derived } from './derived.ts'
import { DIGEST_LENGTH } from './digests.ts'
import type { Lists } from './lists.ts'
import { findSources, lookup } from './paths.ts'
import { blockSumRule } from './setup.ts'
import { MOST_STRONG, type StockVisit, stockSumHead } from './stock-clients.ts'
import type { Tree } from './tree.ts'
import { cutSums } from './wire/sums.ts'

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
  /** What a device with -H asks, one after the other. */
  readonly sequence: readonly DeviceQuestion[]
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
  const groups = new Map<number, { question: DeviceQuestion | undefined; exists: boolean; at: number }>()
  const sequence: { question: DeviceQuestion; at: number }[] = []
  let at = 0
  const pacer = new Pacer(signal)
  const waiting = [{ node: await lookup(to, path, false), old: await lookup(from, path, false) }]
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const first = to.firstChild(next.node)
    const directories: typeof waiting = []
    for (let node = first; node < first + to.childCount(next.node); node++) {
      if (pacer.due) await pacer.rest()
      const old = childOf(from, next.old, to.name(node))
      if (isDirectoryMode(to.mode(node))) directories.push({ node, old })
      at++
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
        if (asked) sequence.push({ question: asked, at })
      } else if (!known || (!known.exists && basis >= 0)) {
        groups.set(group, { question: asked, exists: basis >= 0, at })
      }
    }
    // In the order of the list, so that the name asked for first is met first.
    waiting.push(...directories.reverse())
  }
  for (const { question, at } of groups.values()) if (question) sequence.push({ question, at })
  for (const { question } of sequence) question.times++
  sequence.sort((a, b) => a.at - b.at)
  return { from, to, questions: [...questions.values()], sequence: sequence.map(({ question }) => question) }
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
  readonly best: { squeeze: (codec: CodecName) => Squeeze; frame: () => FrameCompressor }
  readonly checksumSeed: number
}

/** Gets a list ready, as clients of this kind are sent it, and has it kept. */
export async function warmList(
  { lists }: Kitchen,
  tree: Tree,
  module: ByteString,
  { options, agreement }: StockVisit,
  signal: AbortSignal,
): Promise<void> {
  const { paths, relative, secluded, recurse } = options
  const sources = () =>
    findSources(tree, { module, paths, relative, secluded, directoriesSent: recurse }, signal)
  await lists.prepare({ tree, module, options, rules: [], agreement, sources }, signal)
  await lists.keepAll()
}

export interface AnswersRequest {
  readonly update: Update
  /** Of clients whose sums are made by one rule: what else they agreed on. */
  readonly visits: readonly StockVisit[]
  /** Compress quickly: the refiner goes on later. */
  readonly quick: boolean
  /**
   * Told of each question, with what became of it for each visit; undefined when its content can't be read. For
   * visits whose literal data goes into frames that hold several files it is told later, for each time that the
   * question is asked.
   */
  readonly onDone: (question: DeviceQuestion, prepared: ReadonlyMap<StockVisit, Prepared> | undefined) => void
  /** Waited for after something was worked on for so long: clients come first. */
  readonly pause: (workedMs: number) => Promise<void>
}

/** Gets everything ready that such clients ask on their way from one build to the other. */
export async function warmAnswers(
  kitchen: Kitchen,
  { update, visits, quick, onDone, pause }: AnswersRequest,
  signal: AbortSignal,
): Promise<void> {
  const manners = visits.map((visit) => ({ visit, manner: mannerOfVisit(visit) }))
  const loose = manners.filter(({ visit }) => !isFramed(visit))
  const { from, to, questions } = update
  const best = quick ? undefined : kitchen.best
  const { transferDigest, seed } = visits[0]!.agreement
  // What is known already is found without a wait in between.
  const pacer = new Pacer(signal)
  await eachAtOnce(questions, AT_ONCE, async (question) => {
    await prepareOne(question, async ({ node, basis }) => {
      const sums = await sumsOf(kitchen.derived, from, basis, visits[0]!, signal)
      const all = await kitchen.answers.prepare(
        { tree: to, node, ...sums },
        loose.map(({ manner }) => manner),
        best?.squeeze,
        signal,
      )
      await kitchen.derived.digest(to, node, transferDigest, seed, signal)
      return new Map(loose.map(({ visit }, i) => [visit, all[i]!]))
    })
  })
  for (const { visit, manner } of manners) {
    if (!isFramed(visit)) continue
    await prepareFrames(visit, manner, update.sequence, onDone)
    // Devices with -c come another way.
    if (questions.some(({ times }) => times === 0))
      await prepareFrames(visit, manner, questions, (question, prepared) => {
        if (question.times === 0) onDone(question, prepared)
      })
  }

  /** In the order in which they are asked, as each file refers back to those before it. */
  async function prepareFrames(
    visit: StockVisit,
    manner: Manner,
    sequence: readonly DeviceQuestion[],
    tell: AnswersRequest['onDone'],
  ): Promise<void> {
    const frames = kitchen.answers.openFrames()
    try {
      for (const [place, question] of sequence.entries()) {
        await prepareOne(
          question,
          async ({ node, basis }) => {
            const sums = await sumsOf(kitchen.derived, from, basis, visits[0]!, signal)
            const asked = { tree: to, node, ...sums, manner, fresh: false, frames }
            return new Map([[visit, await kitchen.answers.prepareFramed(asked, place, best, signal)]])
          },
          tell,
        )
      }
    } finally {
      kitchen.answers.leaveFrame(frames, quick ? 'quick' : 'best')
    }
  }

  async function prepareOne(
    question: DeviceQuestion,
    prepare: (question: DeviceQuestion) => Promise<ReadonlyMap<StockVisit, Prepared>>,
    tell = onDone,
  ): Promise<void> {
    signal.throwIfAborted()
    if (pacer.due) await pacer.rest()
    const began = performance.now()
    let prepared: ReadonlyMap<StockVisit, Prepared> | undefined
    try {
      prepared = await prepare(question)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      // Whose content it was is not known.
      to.suspect?.(question.node)
      if (question.basis >= 0) from.suspect?.(question.basis)
    }
    tell(question, prepared)
    await pause(performance.now() - began)
  }
}

function mannerOfVisit({ agreement }: StockVisit): Manner {
  const { codec } = agreement
  return mannerOf(blockSumRule(agreement), false, codec && { codec, level: undefined, effort: 'normal' })
}

/** What is told of when literal data goes into frames. */
export function framedQuestions({ sequence, questions }: Update): readonly DeviceQuestion[] {
  return [...sequence, ...questions.filter(({ times }) => times === 0)]
}

/** Whether literal data goes into frames that hold several files. */
export function isFramed({ agreement }: StockVisit): boolean {
  return agreement.codec === 'zstd'
}

/** What the device sends of what it has, and the same whole, since here we have it, too. */
async function sumsOf(
  derived: Derived,
  from: Tree,
  basis: number,
  { agreement }: StockVisit,
  signal: AbortSignal,
): Promise<Pick<Asked, 'sums' | 'wholeSums'>> {
  const { protocol, transferDigest } = agreement
  const head = basis < 0 ? undefined : stockSumHead(from.size(basis), protocol, transferDigest)
  if (!head) return { sums: undefined }
  const whole = { ...head, strongLength: Math.min(MOST_STRONG, DIGEST_LENGTH[transferDigest]) }
  const bytes = await derived.blockSums(from, basis, whole, blockSumRule(agreement), signal)
  const wholeSums = { head: whole, bytes }
  return { sums: await cutSums(wholeSums, head.strongLength, new Pacer(signal)), wholeSums }
}
