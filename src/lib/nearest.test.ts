import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nearest, nearestOf } from './nearest.ts'

const KEYS = ['budget', 'data_dir', 'listen', 'list', 'source']

test('a slip of the finger finds its word', () => {
  assert.equal(nearest('buget', KEYS), 'budget')
  assert.equal(nearest('DATA_DIR', KEYS), 'data_dir')
  assert.equal(nearest('lisen', KEYS), 'listen')
  assert.equal(nearest('sorce', KEYS), 'source')
})

test('a word of another kind finds nothing', () => {
  assert.equal(nearest('chocolate', KEYS), undefined)
  assert.equal(nearest('x', KEYS), undefined)
  assert.equal(nearest('budget', []), undefined)
})

test('the likeliest come first, equal ones by name, and only so many', () => {
  assert.deepEqual(nearestOf('80', ['81', '8', '802', '90', '7']), ['8', '802', '81'])
  assert.deepEqual(nearestOf('80', ['81', '8', '802', '90', '7'], 1), ['8'])
  assert.deepEqual(nearestOf('list', ['listen', 'lost', 'list']), ['list', 'lost'])
})
