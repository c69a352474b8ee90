/**
 * Conversations that are kept: those recorded from real clients (test/vectors), and the corpus of hostile
 * ones (test/fuzz/corpus), whose file names begin with how they must end.
 */
import { globSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { VECTORS } from './vectors.ts'

export const CORPUS = fileURLToPath(new URL('../fuzz/corpus/', import.meta.url))

export interface Kept {
  path: string
  name: string
}

function clientsIn(folder: string): Kept[] {
  return globSync(`${folder}**/*.client`)
    .sort()
    .map((path) => ({ path, name: basename(path, '.client') }))
}

export const recordings = (): Kept[] => clientsIn(VECTORS)
export const corpus = (): Kept[] => clientsIn(CORPUS)
