/** Does `work` for each item, so many at a time. The first that fails fails all, once those under way have ended. */
export async function eachAtOnce<T>(
  items: Iterable<T>,
  most: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const waiting = items[Symbol.iterator]()
  let failed = false
  const one = async (): Promise<void> => {
    for (let next = waiting.next(); !next.done && !failed; next = waiting.next()) {
      try {
        await work(next.value)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const all = await Promise.allSettled(Array.from({ length: most }, one))
  for (const result of all) if (result.status === 'rejected') throw result.reason
}
