/**
 * Which blobs an ingest need not write again, agreed between its worker thread and the sweep.
 *
 * An ingest that finds its file's digest in the store relies on that blob before any manifest says so,
 * while the sweep may be about to delete it. One byte of shared memory per blob settles it: the ingest
 * turns it from 0 to CLAIMED, the sweep turns it from 0 to GONE, and whoever comes second sees what the
 * first one did. A row that was GONE once stays so for the ingest, whatever is in it later.
 *
 * The ingest looks into the index itself, which changes meanwhile (blob-index.ts): no copy is made, however
 * many blobs there are. What it misses is written twice, and compaction drops the copy; rows that came after
 * it began are not known to it.
 */
import { type BlobIndex, type BlobRow, findInView, hasCopyInView, type IndexView } from './blob-index.ts'

const CLAIMED = 1
const GONE = 2

/** What crosses to the worker thread: structured clone shares the memory. */
export interface KnownBlobsData {
  index: IndexView
  states: Uint8Array<SharedArrayBuffer>
}

export class KnownBlobs {
  readonly data: KnownBlobsData

  constructor(data: KnownBlobsData) {
    this.data = data
  }

  static of(index: BlobIndex): KnownBlobs {
    const states = new Uint8Array(new SharedArrayBuffer(Math.max(1, index.rowCount)))
    return new KnownBlobs({ index: index.view(), states })
  }

  /** The ingest's side: true when the store has this blob and now keeps it for us. */
  claim(digest: Uint8Array): boolean {
    const { index, states } = this.data
    const row = findInView(index, digest)
    // Content of which the store has no copy to trust is to be written again.
    if (row < 0 || row >= states.length || !hasCopyInView(index, row)) return false
    return Atomics.compareExchange(states, row, 0, CLAIMED) !== GONE
  }

  /** The sweep's side: true when the ingest does not rely on this row's blob, and from now on never will. */
  giveUp(row: BlobRow): boolean {
    const { states } = this.data
    return row >= states.length || Atomics.compareExchange(states, row, 0, GONE) !== CLAIMED
  }

  /**
   * Rows of the blobs that the ingest relies on. They are rows of the store's index still, since no sweep
   * took them out.
   */
  *claimed(): Generator<BlobRow> {
    const { states } = this.data
    for (let row = 0; row < states.length; row++) if (Atomics.load(states, row) === CLAIMED) yield row
  }
}
