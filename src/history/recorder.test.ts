import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ChangeRecord, NOBODY } from './change-record.ts'
import type { FetchEnd } from './fetch-record.ts'
import { MovingRecorder, type Recorder } from './recorder.ts'
import type { SessionRecord } from './session-record.ts'

/** Writes down what it is told. */
class Notes implements Recorder {
  readonly all: string[] = []

  session({ id }: SessionRecord): void {
    this.all.push(`session ${id}`)
  }

  fetch({ id }: FetchEnd): void {
    this.all.push(`fetch ${id}`)
  }

  change({ what }: Omit<ChangeRecord, 'id'>): void {
    this.all.push(`change ${what}`)
  }
}

const session = (id: number): SessionRecord => ({ id }) as SessionRecord
const fetched = (id: string): FetchEnd => ({ id }) as FetchEnd
const change = (what: string, who = 'command') => ({ what, who }) as ChangeRecord

function tellAll(recorder: Recorder, n: number): void {
  recorder.session(session(n))
  recorder.fetch(fetched(String(n)))
  recorder.change(change(String(n)))
}
const told = (...numbers: number[]): string[] =>
  numbers.flatMap((n) => [`session ${n}`, `fetch ${n}`, `change ${n}`])

for (const moves of [true, false])
  test(`what comes while it is open who remembers it reaches ${moves ? 'the other' : 'the same one'}, and what comes later`, () => {
    const [ours, other] = [new Notes(), new Notes()]
    const recorder = new MovingRecorder(ours)
    tellAll(recorder, 1)
    const decide = recorder.hold()
    tellAll(recorder, 2)
    assert.deepEqual(ours.all, told(1))
    decide(moves ? other : undefined)
    tellAll(recorder, 3)
    assert.deepEqual([ours.all, other.all], moves ? [told(1), told(2, 3)] : [told(1, 2, 3), []])
  })

test('it may be open again and again', () => {
  const ours = new Notes()
  const recorder = new MovingRecorder(ours)
  for (const n of [1, 2]) {
    const decide = recorder.hold()
    tellAll(recorder, n)
    decide()
  }
  assert.deepEqual(ours.all, told(1, 2))
})

test('not more than so many wait, and strangers push nothing else out', () => {
  const ours = new Notes()
  const recorder = new MovingRecorder(ours)
  const decide = recorder.hold()
  for (let n = 0; n < 20_000; n++) recorder.change(change('refused', NOBODY))
  for (let n = 0; n < 20_000; n++) recorder.session(session(n))
  decide()
  assert.deepEqual([ours.all.length, ours.all[500]], [10_000, 'session 0'])
})
