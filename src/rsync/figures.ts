/**
 * What a transfer amounted to, counted as it goes: for the log, for whoever watches, and to explain a session
 * afterwards. Of files it remembers the few that cost the most.
 */

/** What a client had of a file when it asked for it. */
export type Had =
  /** Nothing of that name. */
  | 'nothing'
  /** A file, of which it sent no sums: it was told to take files whole, or its file is empty. */
  | 'no-sums'
  /** A file whose sums take more memory than one client may have. */
  | 'too-many-blocks'
  /** A file, and its block sums. */
  | 'blocks'

/** A file that was sent, and how much of it the client did not have. */
export interface SentFile {
  /** For people: escaped and cut. */
  name: string
  had: Had
  matchedBytes: number
  literalBytes: number
}

/** How answers were had (answers.ts). */
export interface AnswerTally {
  /** Worked out for this session by a search for the client's blocks. */
  searched: number
  /** Worked out for this session without one: the client had nothing. */
  prepared: number
  /** Worked out before, or for another session at the same time. */
  reused: number
}

export interface TransferFigures extends AnswerTally {
  files: number
  /** Of these, files of which the client had nothing. */
  newFiles: number
  matchedBytes: number
  literalBytes: number
  /** Literal bytes of files of which the client had nothing. */
  newBytes: number
  /** How far it is through the list, in entries. */
  position: number
  /** Those with the most literal data, the most first. */
  costliest: SentFile[]
}

/** Files that are remembered. */
const COSTLIEST = 10

export function noFigures(): TransferFigures {
  return {
    files: 0,
    newFiles: 0,
    matchedBytes: 0,
    literalBytes: 0,
    newBytes: 0,
    searched: 0,
    prepared: 0,
    reused: 0,
    position: 0,
    costliest: [],
  }
}

/** Counts one file. @returns whether it belongs to the costliest so far: then `rememberFile` is called. */
export function countFile(figures: TransferFigures, had: Had, matched: number, literal: number): boolean {
  figures.matchedBytes += matched
  figures.literalBytes += literal
  if (had === 'nothing') {
    figures.newFiles++
    figures.newBytes += literal
  }
  const { costliest } = figures
  return literal > (costliest.length < COSTLIEST ? 0 : costliest.at(-1)!.literalBytes)
}

export function rememberFile({ costliest }: TransferFigures, file: SentFile): void {
  const at = costliest.findIndex((other) => other.literalBytes < file.literalBytes)
  costliest.splice(at < 0 ? costliest.length : at, 0, file)
  if (costliest.length > COSTLIEST) costliest.pop()
}
