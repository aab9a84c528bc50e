// What a caller may say about where a model comes from. Types only, so that every platform may name them.

/** How far a download is. */
export interface DownloadProgress {
  /** The file that is being fetched, as the repository names it. */
  path: string;
  /** Of all files together, those included that were there before. */
  receivedBytes: number;
  totalBytes: number;
}

/** Options for models on the Hugging Face hub, under huggingface_hub's names in camelCase. */
export interface HubOptions {
  /** Branch, tag or commit; "main" by default. */
  revision?: string;
  /** Access token; false sends none. By default `HF_TOKEN`, else what `hf auth login` has stored. */
  token?: string | false;
  /** Default `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`: the folder that Python uses. */
  cacheDir?: string;
  /** Uses the cache alone; `HF_HUB_OFFLINE=1` does the same. */
  localFilesOnly?: boolean;
  onProgress?: (progress: DownloadProgress) => void;
  /** Told in a sentence what takes long, or what is done instead of what was asked. */
  onMessage?: (message: string) => void;
  signal?: AbortSignal;
}
