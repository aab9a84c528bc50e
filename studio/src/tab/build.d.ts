/** The library's version, put in when the page is built. */
declare const __FERA_VERSION__: string;
