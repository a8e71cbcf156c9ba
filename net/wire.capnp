@0xd3a1f0b7c2e94865;

# Messages between two daemons, and between a daemon and a user's program (docs/protocol.md).
#
# One frame carries one `Message` and, beside it, raw payload bytes. Rules for changes: fields and
# union members are only added; what an older peer would misunderstand is gated by a bit of
# `Hello.features`. Names on disk and arena names are Data, since they need not be UTF-8.

struct Message {
  id @0 :UInt32;
  # Number of the request that the message belongs to, chosen by the side that asks. Ids of the two
  # sides are independent. 0 for what belongs to the whole connection.

  union {
    hello @1 :Hello;
    # First message each way, and only then.

    ping @2 :UInt64;
    # Answered at once by a pong with the same token.

    pong @3 :UInt64;

    goodbye @4 :Text;
    # Last message: why the sender closes the connection.

    credit @5 :UInt32;
    # Asker to answerer: so many more bytes of answers may be sent for this id.

    cancel @6 :Void;
    # Asker to answerer: no more answers are wanted. Still answered by `end` or `error`.

    end @7 :Void;
    # Answerer: the answer is complete; the id is free again.

    error @8 :Error;
    # Answerer: the request failed; the id is free again.

    subscribe @9 :Subscribe;
    # Answers: `announcements`, for as long as the asker stays.

    acknowledge @10 :Acknowledge;
    # No answer and no id.

    read @11 :Read;
    # Answers: `data`, in the order of the ranges.

    readVersion @12 :ReadVersion;
    # Answers: `data`.

    readMany @13 :ReadMany;
    # Answers: `many`.

    blocks @14 :Blocks;
    # Answer: one `blockList`.

    have @15 :Have;
    # Answer: one `flags`.

    announcements @16 :Void;
    # Payload: a compressed `Announcements`.

    data @17 :UInt64;
    # The offset of the payload in the content.

    many @18 :Many;
    # Payload: contents, one after the other.

    blockList @19 :UInt32;
    # The block size in bytes. Payload: 32 bytes for each block.

    flags @20 :Void;
    # Payload: one byte for each thing asked, 0 or 1.

    control @21 :Text;
    # Only on the control socket: the name of a method. Payload: its arguments in MessagePack.

    result @22 :Bool;
    # Answer to `control`. Payload: (a part of) a value in MessagePack; true when more parts of the
    # same value follow.

    lease @23 :Lease;
    # Answer: one `flags`. Only where both sides have the feature.
  }
}

struct Hello {
  protocol @0 :UInt16;
  # Version of the rules that features cannot express. Both sides must name the same.

  name @1 :Data;
  # What the sender calls itself; for display only, the certificate says who it is.

  features @2 :UInt64;
  # Bits of docs/protocol.md §Features. In force is what both sides name.

  arenas @3 :List(Data);
  # Arenas that the sender lets the receiver see.

  clockNs @4 :Int64;
  # Wall clock of the sender, ns since 1970; to warn of wrong clocks, never to order.
}

struct Error {
  code @0 :UInt16;
  # `core.errors.WIRE_CODES`; 0: an internal error of the sender.

  message @1 :Text;
  causes @2 :List(Text);
  # Outermost first.

  hint @3 :Text;
  # What to do next, for people; may be empty.
}

struct Subscribe {
  arena @0 :Data;
  uuid @1 :Data;
  # History last seen, 16 bytes; empty: none.

  seq @2 :UInt64;
  window @3 :UInt32;
  # First credit, in bytes.
}

struct Acknowledge {
  arena @0 :Data;
  uuid @1 :Data;
  seq @2 :UInt64;
}

struct Read {
  arena @0 :Data;
  content @1 :Data;
  # BLAKE3, 32 bytes.

  ranges @2 :Data;
  # Pairs (start, end) of big-endian u64: sorted, disjoint, not adjacent, not empty.

  interactive @3 :Bool;
  # Answers overtake those of other requests.

  window @4 :UInt32;
}

struct ReadVersion {
  arena @0 :Data;
  path @1 :Data;
  vector @2 :Data;
  offset @3 :UInt64;
  length @4 :UInt32;
  # At most 1 MiB, which is also the credit.
}

struct ReadMany {
  arena @0 :Data;
  contents @1 :Data;
  # 32 bytes each.

  sizes @2 :Data;
  # Little-endian u32 each; what has another size by now counts as not held.

  window @3 :UInt32;
}

struct Blocks {
  arena @0 :Data;
  content @1 :Data;
  first @2 :UInt32;
  count @3 :UInt32;
}

struct Have {
  arena @0 :Data;
  contents @1 :Data;
  # 32 bytes each.
}

struct Lease {
  arena @0 :Data;
  contents @1 :Data;
  # 32 bytes each.

  pathLengths @2 :Data;
  # A little-endian u32 for each content.

  paths @3 :Data;
  # One after the other: where the asker is about to give up the content.
}

struct Many {
  first @0 :UInt32;
  # Index (in the request) of the first of these contents; the others follow it.

  lengths @1 :Data;
  # Little-endian u32 each; 0xffffffff: not held.
}

struct Announcements {
  # The payload of `announcements`: entries of one arena in columns. A column is the concatenation of
  # one fixed-width little-endian value per entry, or of bytes whose lengths are a column of their own.
  # Sparse columns are empty when no entry has the thing. All columns count the same entries, in the
  # order of the directories.

  uuid @0 :Data;
  seq @1 :UInt64;
  phase @2 :UInt8;
  # `core.announce.Phase`.

  directoryCounts @3 :Data;
  # u32 for each directory: how many entries it has here.

  directoryLengths @4 :Data;
  # u32.

  directories @5 :Data;
  nameLengths @6 :Data;
  # u8.

  names @7 :Data;
  holdings @8 :Data;
  # u8, `core.types.Holding`.

  kinds @9 :Data;
  # u8, `core.types.Kind`.

  sizes @10 :Data;
  # u64.

  mtimesNs @11 :Data;
  # i64.

  modes @12 :Data;
  # u16, permission bits.

  hashed @13 :Data;
  # u8: 1 when the entry has a hash, else 0.

  hashes @14 :Data;
  # 32 bytes for each 1 in `hashed`.

  vectorLengths @15 :Data;
  # u16 for each distinct vector.

  vectors @16 :Data;
  # The distinct vectors, canonical (`core.versions`).

  vectorIndex @17 :Data;
  # u16 for each entry: which vector it has.

  targetLengths @18 :Data;
  # u16, sparse: text of a link.

  targets @19 :Data;
  renamedLengths @20 :Data;
  # u32, sparse: full old path of a renamed entry.

  renamed @21 :Data;
}
