/**
 * Which blobs an ingest need not write again, agreed between its worker thread and the sweep.
 *
 * An ingest that finds its file's digest in the store relies on that blob before any manifest says so,
 * while the sweep may be about to delete it. One byte of shared memory per blob settles it: the ingest
 * turns it from 0 to CLAIMED, the sweep turns it from 0 to GONE, and whoever comes second sees what the
 * first one did. The table is a copy of the index as the ingest began; blobs that come later are simply
 * not known to it (they are written twice, and compaction drops the copy).
 */
import { type BlobIndex, type BlobRow, findInSnapshot, type IndexSnapshot } from './blob-index.ts'

const CLAIMED = 1
const GONE = 2

/** What crosses to the worker thread: structured clone shares the memory. */
export interface KnownBlobsData {
  index: IndexSnapshot
  states: Uint8Array<SharedArrayBuffer>
}

export class KnownBlobs {
  readonly data: KnownBlobsData

  constructor(data: KnownBlobsData) {
    this.data = data
  }

  static of(index: BlobIndex): KnownBlobs {
    const states = new Uint8Array(new SharedArrayBuffer(Math.max(1, index.rowCount)))
    // Content of which the store has no copy to trust is to be written again.
    for (const row of index.lost()) states[row] = GONE
    return new KnownBlobs({ index: index.snapshot(), states })
  }

  /** The ingest's side: true when the store has this blob and now keeps it for us. */
  claim(digest: Uint8Array): boolean {
    const row = findInSnapshot(this.data.index, digest)
    return row >= 0 && Atomics.compareExchange(this.data.states, row, 0, CLAIMED) !== GONE
  }

  /** The sweep's side: true when the ingest does not rely on this blob, and from now on never will. */
  giveUp(digest: Uint8Array): boolean {
    const row = findInSnapshot(this.data.index, digest)
    return row < 0 || Atomics.compareExchange(this.data.states, row, 0, GONE) !== CLAIMED
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
