/** What of WebAssembly is used here: TypeScript knows it only together with a browser's other types. */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array)
  }
  class Instance {
    constructor(module: Module)
    readonly exports: Record<string, unknown>
  }
  interface Memory {
    readonly buffer: ArrayBuffer
    /** @param pages of 64 KiB. Views of the buffer from before are of no use afterwards. */
    grow(pages: number): number
  }
}
