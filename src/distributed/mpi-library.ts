// The MPI library of the machine through koffi: found, told apart, and its functions with the types that it gives handles.
// Nothing here is loaded unless a training asks for MPI.

import type * as Koffi from "koffi";
import { ConfigError, quoted } from "../errors.js";
import type { Launch } from "./launch.js";

/** A handle of an MPI object: an address in Open MPI, a number in MPICH. */
export type Handle = bigint | number;

/** Names this library instead of those that are looked for. */
export const LIBRARY_VARIABLE = "FERA_MPI_LIBRARY";

/** Of either family, by the names under which Linux and macOS install them. */
const LIBRARIES = {
  openMpi: ["libmpi.so.40", "libmpi.so", "libmpi.40.dylib", "libmpi.dylib"],
  mpich: ["libmpich.so.12", "libmpi.so.12", "libmpich.so", "libmpi.12.dylib"],
} as const;

/**
 * What differs between the two binary interfaces. Open MPI 4 and 5 have objects behind exported symbols. MPICH has numbers,
 * the same in all that keep its interface: Intel MPI, MVAPICH, Cray MPICH.
 */
interface Interface {
  family: "Open MPI" | "MPICH";
  handle: "void *" | "int";
  world: Handle;
  float: Handle;
  byte: Handle;
  sumOperation: Handle;
  errorsReturn: Handle;
  /** MPI_IN_PLACE. */
  inPlace: bigint;
  /** MPI_ANY_SOURCE. */
  anySource: number;
  /** MPI_STATUS_IGNORE. */
  ignoreStatus: bigint | null;
}

const MPICH: Interface = {
  family: "MPICH",
  handle: "int",
  world: 0x44000000,
  float: 0x4c00040a,
  byte: 0x4c00010d,
  sumOperation: 0x58000003,
  errorsReturn: 0x54000001,
  inPlace: 0xffffffffffffffffn,
  anySource: -2,
  ignoreStatus: 1n,
};

/** An exported symbol that only Open MPI has. */
const OPEN_MPI_WORLD = "ompi_mpi_comm_world";

/** MPI functions, each of which gives an error code, 0 for success. Memory is handed over as it is. */
type Call = (...args: unknown[]) => number;

/** A loaded library. */
export interface MpiLibrary extends Interface {
  /** As the library names itself. */
  version: string;
  calls: Record<(typeof FUNCTIONS)[number][0], Call>;
}

/** Names and types of arguments: a is an address, h a handle, i an int. */
const FUNCTIONS = [
  ["MPI_Init_thread", "aaia"],
  ["MPI_Finalize", ""],
  ["MPI_Abort", "hi"],
  ["MPI_Comm_rank", "ha"],
  ["MPI_Comm_size", "ha"],
  ["MPI_Comm_set_errhandler", "hh"],
  ["MPI_Error_string", "iaa"],
  ["MPI_Get_library_version", "aa"],
  ["MPI_Get_processor_name", "aa"],
  ["MPI_Ibarrier", "ha"],
  ["MPI_Iallreduce", "aaihhha"],
  ["MPI_Ibcast", "aihiha"],
  ["MPI_Iallgather", "aihaihha"],
  ["MPI_Isend", "aihiiha"],
  ["MPI_Irecv", "aihiiha"],
  ["MPI_Test", "aaa"],
] as const;

/** Longest text of MPI_Get_library_version: 256 in Open MPI, 8192 in MPICH. */
const VERSION_BYTES = 8192;

/**
 * Loads koffi and the MPI library.
 *
 * @param launch - Who started this process: its own library is looked for first.
 * @throws {ConfigError} If koffi or the library is missing, or the library is of neither family; says what to install.
 */
export async function loadMpiLibrary(launch: Launch | undefined): Promise<MpiLibrary> {
  const koffi = await loadKoffi();
  const { library, path } = openLibrary(koffi, launch);
  const binary = interfaceOf(library);
  const types = { a: "void *", h: binary.handle, i: "int" } as const;
  const calls = {} as MpiLibrary["calls"];
  for (const [name, letters] of FUNCTIONS) {
    try {
      calls[name] = library.func(
        name,
        "int",
        [...letters].map((letter) => types[letter as keyof typeof types]),
      ) as Call;
    } catch (cause) {
      throw new ConfigError(`${path}: has no ${name}; it must be an MPI library of version 3 or later.`, { cause });
    }
  }
  const version = versionOf(calls.MPI_Get_library_version);
  if (binary.family === "MPICH" && !/MPICH|Intel|MVAPICH/i.test(version)) {
    throw new ConfigError(
      `${path}: an MPI library with an unknown binary interface (${quoted(version)}). Known are Open MPI's and MPICH's; ` +
        `name one of these in ${LIBRARY_VARIABLE}.`,
    );
  }
  return { ...binary, version, calls };
}

async function loadKoffi(): Promise<typeof Koffi> {
  try {
    return (await import("koffi")).default as unknown as typeof Koffi;
  } catch (cause) {
    throw new ConfigError(
      "--distributed mpi needs the package koffi, which calls the MPI library: npm install koffi.",
      {
        cause,
      },
    );
  }
}

function openLibrary(koffi: typeof Koffi, launch: Launch | undefined): { library: Koffi.LibraryHandle; path: string } {
  const { openMpi, mpich } = LIBRARIES;
  const isHydra = launch?.launcher.startsWith("Hydra") ?? false;
  const named = process.env[LIBRARY_VARIABLE];
  const paths = named ? [named] : isHydra ? [...mpich, ...openMpi] : [...openMpi, ...mpich];
  const reasons: string[] = [];
  for (const path of paths) {
    try {
      // Open MPI's plugins look for the library's own symbols among the global ones.
      return { library: koffi.load(path, { lazy: true, global: true }), path };
    } catch (cause) {
      reasons.push((cause as Error).message);
    }
  }
  throw new ConfigError(
    named
      ? `${LIBRARY_VARIABLE}: ${quoted(named)} cannot be loaded: ${reasons[0]}.`
      : `--distributed mpi: no MPI library was found (${paths.join(", ")}). Install Open MPI or MPICH: ` +
          "`apt-get install openmpi-bin` on Debian and Ubuntu, `dnf install openmpi` on Fedora, `brew install open-mpi` on " +
          `macOS, \`module load openmpi\` on many clusters; or name the library in ${LIBRARY_VARIABLE}.`,
  );
}

/** Open MPI exports its communicator as a symbol, which no library with MPICH's interface does. */
function interfaceOf(library: Koffi.LibraryHandle): Interface {
  const symbol = (name: string): Handle => library.symbol(name) as bigint;
  let world: Handle;
  try {
    world = symbol(OPEN_MPI_WORLD);
  } catch {
    return MPICH;
  }
  return {
    family: "Open MPI",
    handle: "void *",
    world,
    float: symbol("ompi_mpi_float"),
    byte: symbol("ompi_mpi_byte"),
    sumOperation: symbol("ompi_mpi_op_sum"),
    errorsReturn: symbol("ompi_mpi_errors_return"),
    inPlace: 1n,
    anySource: -1,
    ignoreStatus: null,
  };
}

/** Allowed before MPI_Init. */
function versionOf(call: Call): string {
  const text = new Uint8Array(new ArrayBuffer(VERSION_BYTES));
  const length = new Int32Array(new ArrayBuffer(VERSION_BYTES));
  call(text, length);
  const whole = new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
  // "Open MPI v4.1.4, package: …", "MPICH Version:\t4.0.2\nMPICH Release date…".
  return whole
    .split(/[,\n]/)[0]!
    .replace(/ Version:\s*/, " ")
    .trim();
}
