/* Commits and collection, as one protocol: writers, collectors, readers, deletes, crashes.
 *
 * What is modelled. The log itself is not stored: kept is its FOLD at the head. To append is one
 * atomic step that changes the fold. Who looks at the fold and acts later acts on what may be stale:
 * a writer that has looked chunks up, a collector that has marked, a reader that has resolved. Files
 * come and go apart from the log. A process may stop for good between any two of its steps, and
 * crashes (`goto` the beginning, nothing remembered) are choices.
 *
 * Chunks. A and B; B is a node of a tree over A, so whoever has B has A (`CLOSED`). With DIFFS they
 * stand apart instead, and B may be stored as a difference from A. With KEYS there are A and B under
 * each of two keys: four chunks, for a chunk's name holds its key.
 *
 * Containers (log segments, packs): absent -> file -> registered ("open") -> removed. Each process
 * has names of its own for each attempt.
 *
 * What must hold, after every append and every deletion of files (SAFE): each chunk of each living
 * checkpoint is in an open container; the newest such container has its file; and it can be read
 * there: its base is beside it, its key is there. At the end (`init`): one more collection leaves no
 * byte that is dead.
 *
 * The rules, and the flag that breaks each (specs/models/README.md has the table):
 *   1 WITNESS    stored chunks are relied on only through a payload that is retained in the state
 *                that the commit is appended to                        BUG_WITNESS, BUG_ROOT (UPDATES)
 *   2 ATOMIC     checks and append are one step                        BUG_ATOMIC
 *     BOUNDARY   marks and look-ups stand at whole commits             BUG_BOUNDARY (ROTATE)
 *     ID         the command's id is looked up first, in that step     BUG_ID
 *   3 NEWEST     a settle copies what is live, unless a container that stays and was registered
 *                later has it                                          BUG_NEWEST (TWICE)
 *     ONE VIEW   live set and containers are of one position           BUG_VIEW
 *     CLOSURE    the live set is closed over children                  BUG_CLOSURE
 *     ONE EVENT  what a settle adds and removes is one event           BUG_SPLIT
 *     ORDER      files go after the event that says so                 BUG_ORDER
 *     ORPHANS    ... or unregistered ones with a base below the fence  BUG_ORPHANS
 *   4 FENCE      a registration with a base below the fence is refused BUG_FENCE, BUG_FENCE_SETTLE
 *     NAMES      a container's name is never used twice                BUG_NAMES
 *   5 REREAD     who misses a container resolves again                 BUG_REREAD
 * Of differences (DIFFS):
 *   6 BESIDE     a base is in the same container as its difference     BUG_BASE_ELSEWHERE
 *     WITH BASE  a difference is copied with its base, or whole        BUG_BASE_LEFT
 * Of keys (KEYS):
 *   7 SCOPE      a witness is of the same key                          BUG_KEY_REUSE
 *     SEAL       a settle leaves each record under its key             BUG_KEY_SEAL
 *     SAME KEY   base and difference have one key (with DIFFS)         BUG_KEY_BASE
 *     REFUSED    a commit under a destroyed key is refused             BUG_KEY_LATE
 *     EVENT 1ST  a key goes after the event that says so               BUG_KEY_ORDER
 * Extensions: UPDATES (a checkpoint's payload is replaced), SEVERAL (a settle takes two containers,
 * and may write two), DIFFS, KEYS, TWICE (a chunk stored twice), ROTATE ([delete, create] in one).
 */
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef COLLECTORS
#define COLLECTORS 1
#endif
#ifndef READERS
#define READERS 0
#endif
#ifndef DELETES
#define DELETES 1
#endif
#ifndef TRIES      /* attempts of each writer: retries, crashes, restarts */
#define TRIES 1
#endif
#ifndef ROUNDS     /* likewise of each collector */
#define ROUNDS 1
#endif

#ifdef TWICE
#define OLD 3      /* containers that are there at first */
#else
#define OLD 2
#endif
#ifdef SEVERAL
#define OUT 2      /* containers that a settle may write */
#else
#define OUT 1
#endif
#define CONTAINERS (OLD + WRITERS * TRIES + COLLECTORS * ROUNDS * OUT)
#define NONE CONTAINERS
#define CHECKPOINTS (1 + WRITERS)
#ifdef KEYS
#define CHUNKS 4
#define KEY_OF(chunk) ((chunk) >> 1)
#else
#define CHUNKS 2
#define KEY_OF(chunk) 0
#endif
#define BIT(n) (1 << (n))
#define HAS(set, n) ((set) & BIT(n))

#define A 1
#define B 2
#define BOTH 3
#ifdef DIFFS
#define CLOSED(chunks) (chunks)
#else
#define CLOSED(chunks) ((chunks) | (((chunks) >> 1) & 5))   /* whoever has B has A, under each key */
#endif

/* --- the fold of the log at its head ----------------------------------------------------------- */
byte  alive, gone;            /* checkpoints: living, deleted */
byte  payload[CHECKPOINTS];   /* chunks of a checkpoint's present payload */
byte  answered;               /* commands that are in the log (a bit for each writer) */
short open, removed;          /* containers: registered, and named by a settle as removed */
byte  order[CONTAINERS];      /* position of the registration; greater is later */
byte  position, fence;
bit   half;                   /* a commit of two events is half applied */
#ifdef KEYS
byte  destroyed;              /* keys that the log says are destroyed */
byte  key[CHECKPOINTS];
#endif

/* --- the medium -------------------------------------------------------------------------------- */
short files;                  /* containers whose file is there */
byte  holds[CONTAINERS];      /* chunks in it */
byte  base[CONTAINERS];       /* position at which its preparation began */
#ifdef DIFFS
byte  diff[CONTAINERS];       /* of them, those stored as differences from A (of the same key) */
#ifdef BUG_BASE_ELSEWHERE
bit   far[CONTAINERS];        /* ... whose base is in another container */
#endif
#ifdef BUG_KEY_BASE
bit   alien_base[CONTAINERS]; /* ... whose base is under the other key */
#endif
#endif
#ifdef KEYS
byte  key_files = 3;
#ifdef BUG_KEY_SEAL
byte  alien[CONTAINERS];      /* chunks sealed under the other key */
#endif
#endif

/* Scratch of single steps: no part of a state. */
hidden byte n_, c_, L_, newest_, held_, q_, sound_;

/* Chunks of the living checkpoints; what is under a destroyed key is dead. */
inline live_chunks() {
  L_ = 0; n_ = 0;
  do
  :: n_ < CHECKPOINTS ->
     if
#ifdef KEYS
     :: HAS(alive, n_) && !HAS(destroyed, key[n_]) -> L_ = L_ | payload[n_]
#else
     :: HAS(alive, n_) -> L_ = L_ | payload[n_]
#endif
     :: else
     fi;
     n_++
  :: else -> break
  od; n_ = 0
}

/* The container of a set that holds a chunk and was registered last. */
inline find_newest(chunk, among) {
  newest_ = NONE; n_ = 0;
  do
  :: n_ < CONTAINERS ->
     if
     :: HAS(among, n_) && HAS(holds[n_], chunk) && (newest_ == NONE || order[n_] >= order[newest_]) ->
        newest_ = n_
     :: else
     fi;
     n_++
  :: else -> break
  od; n_ = 0
}

/* Whether a chunk can be read where it is: file, base and key. */
inline judge(chunk, container) {
  sound_ = (HAS(files, container) != 0);
#ifdef KEYS
#ifdef BUG_KEY_SEAL
  sound_ = sound_ && HAS(key_files, (HAS(alien[container], chunk) -> 1 - KEY_OF(chunk) : KEY_OF(chunk)));
#else
  sound_ = sound_ && HAS(key_files, KEY_OF(chunk));
#endif
#endif
#ifdef DIFFS
  if
  :: HAS(diff[container], chunk) ->
#ifdef BUG_BASE_ELSEWHERE
     if
     :: far[container] ->
        held_ = container; find_newest(0, open); sound_ = sound_ && newest_ != NONE; newest_ = held_
     :: else -> sound_ = sound_ && HAS(holds[container], chunk - 1)
     fi
#elif defined(BUG_KEY_BASE)
     if
     :: alien_base[container] ->
        sound_ = sound_ && HAS(holds[container], (chunk - 1) ^ 2) && HAS(key_files, 1 - KEY_OF(chunk))
     :: else -> sound_ = sound_ && HAS(holds[container], chunk - 1)
     fi
#else
     sound_ = sound_ && HAS(holds[container], chunk - 1)
#endif
  :: else
  fi
#endif
}

/* The promise. */
inline SAFE() {
  live_chunks(); q_ = 0;
  do
  :: q_ < CHUNKS ->
     if
     :: HAS(L_, q_) ->
        find_newest(q_, open); assert(newest_ != NONE);   /* lost: in no container */
        judge(q_, newest_); assert(sound_)                /* lost: no file, no base or no key */
     :: else
     fi;
     q_++
  :: else -> break
  od; q_ = 0; L_ = 0; newest_ = 0; sound_ = 0; held_ = 0
}

#ifdef BUG_BOUNDARY
#define AT_BOUNDARY true
#else
#define AT_BOUNDARY (half == 0)
#endif

#ifdef BUG_NAMES
#define WRITER_NAME (OLD + me)
#else
#define WRITER_NAME (OLD + me * TRIES + tries - 1)
#endif
#define COLLECTOR_NAME (OLD + WRITERS * TRIES + (me * ROUNDS + rounds - 1) * OUT)

/* --- writers ----------------------------------------------------------------------------------- */

/* Creates a checkpoint (or, with UPDATES, may replace the payload of checkpoint 0 instead): looks
 * chunks up, writes fresh ones to a pack or lets them ride in the log, commits. One command, with one
 * id, however often it is tried. */
proctype Writer(byte me) {
  byte want, fresh, reused, witness, seen, name, tries, target;
  bit packed, ok;
prepare:
  atomic {
    AT_BOUNDARY;
    fresh = 0; reused = 0; witness = 0; seen = 0; name = 0; packed = 0; ok = 0;
    if
    :: tries < TRIES -> tries++
    :: else -> goto done
    fi;
    if
    :: want == 0 ->                       /* the command: the same in each try */
       target = me + 1;
#ifdef UPDATES
       if
       :: target = 0
       :: skip
       fi;
#endif
#ifdef DIFFS
       if
       :: want = A
       :: want = B
       :: want = BOTH
       fi;
#else
       if
       :: want = A
       :: want = BOTH
       fi;
#endif
#ifdef KEYS
       if
       :: target != 0 -> key[target] = 1; want = want << 2
       :: key[target] = 0
       fi;
#endif
    :: else
    fi;
    if                                     /* what to rely on: nothing, a part, or all of it */
    :: reused = 0
    :: reused = want
    :: reused = want & 5
    fi;
#ifdef BUG_WITNESS
    /* any stored copy is believed in */
    find_newest((reused & 10 -> 1 : 0), open);
    if
    :: newest_ == NONE -> reused = 0
    :: else
    fi;
    newest_ = 0;
#else
#ifdef BUG_KEY_REUSE
    /* the same bytes under another key are as good */
    if
    :: (reused & 12) -> want = (want & ~reused) | (reused >> 2); reused = reused >> 2
    :: else
    fi;
#endif
    do
    :: witness < CHECKPOINTS && (!HAS(alive, witness) || (CLOSED(reused) & ~payload[witness])) -> witness++
    :: else -> break
    od;
    if
    :: witness == CHECKPOINTS -> witness = 0; reused = 0
    :: else
    fi;
    seen = payload[witness];
#endif
    fresh = want & ~CLOSED(reused); name = WRITER_NAME;
    if
    :: fresh != 0 && !HAS(open, name) ->   /* a pack, before the commit */
       packed = 1;
       d_step {
         holds[name] = fresh; base[name] = position; removed = removed & ~BIT(name);
         files = files | BIT(name)
       }
    :: skip                                /* the chunks ride in the commit */
    fi
  }
  atomic {
    half == 0;
    if
    :: skip
    :: goto prepare                        /* a crash: the pack is an orphan */
    fi;
#ifndef BUG_ID
    if
    :: HAS(answered, me) -> goto done      /* a retry: the first result is the answer */
    :: else
    fi;
#endif
    ok = 1;
#ifndef BUG_WITNESS
    if
    :: reused != 0 && !HAS(alive, witness) -> ok = 0
#ifndef BUG_ROOT
    :: reused != 0 && payload[witness] != seen -> ok = 0
#endif
    :: else
    fi;
#endif
#ifndef BUG_FENCE
    if
    :: packed && base[name] < fence -> ok = 0
    :: else
    fi;
#endif
#if defined(KEYS) && !defined(BUG_KEY_LATE)
    if
    :: HAS(destroyed, key[target]) -> goto done   /* refused for good */
    :: else
    fi;
#endif
    if
    :: !ok -> goto prepare                 /* stale: prepare again */
    :: target == 0 && HAS(gone, 0) -> goto done
    :: else
    fi;
    assert(!HAS(gone, target));            /* deleted is deleted */
#ifdef KEYS
    assert(!HAS(destroyed, key[target]));  /* acknowledged is readable */
#endif
#ifdef BUG_ATOMIC
  }
  atomic {
    half == 0;
#endif
#ifdef ROTATE
    if
    :: reused && HAS(alive, witness) ->    /* [delete the witness, create] in one commit */
       half = 1; alive = alive & ~BIT(witness); gone = gone | BIT(witness); position++
    :: else -> half = 1
    fi
  }
  atomic {
#endif
    d_step {
      if
      :: fresh != 0 ->
         holds[name] = fresh; base[name] = 0; removed = removed & ~BIT(name);
         files = (packed -> files : files | BIT(name));
         open = open | BIT(name); order[name] = position
      :: else
      fi
    }
#ifdef DIFFS
    if                                     /* what is fresh together may be a difference */
    :: (fresh & BOTH) == BOTH -> diff[name] = B
    :: (fresh & 12) == 12 -> diff[name] = 8
    :: skip
    fi;
#endif
    d_step {
      payload[target] = want; alive = alive | BIT(target); answered = answered | BIT(me);
      position++; half = 0;
      fresh = 0; reused = 0; witness = 0; seen = 0; name = 0; packed = 0; ok = 0;
      SAFE()
    };
    if
    :: goto done
    :: goto prepare                        /* the answer is lost, or a crash: the same command again */
    fi
  }
done:
  tries = 0
}

/* Deletes, in any order. */
proctype Deleter() {
  byte number;
  do
  :: atomic {
       number < DELETES && half == 0 && alive != 0 -> number++;
       if
       :: HAS(alive, 0) -> alive = alive & ~BIT(0); gone = gone | BIT(0)
       :: HAS(alive, 1) -> alive = alive & ~BIT(1); gone = gone | BIT(1)
#if WRITERS > 1
       :: HAS(alive, 2) -> alive = alive & ~BIT(2); gone = gone | BIT(2)
#endif
       fi;
       position++
     }
  :: number >= DELETES || alive == 0 -> break
  od
}

#ifdef KEYS
/* Destroys key 0: an event, then the key. */
proctype Shredder() {
#ifdef BUG_KEY_ORDER
  d_step { key_files = key_files & ~1; SAFE() };
  atomic { half == 0; d_step { destroyed = destroyed | 1; position++; SAFE() } }
#else
  atomic { half == 0; d_step { destroyed = destroyed | 1; position++; SAFE() } };
  d_step { key_files = key_files & ~1; SAFE() }
#endif
}
#endif

/* --- collectors -------------------------------------------------------------------------------- */

/* Marks, copies what is live out of one container (SEVERAL: of up to two), settles, deletes. */
proctype Collector(byte me) {
  byte marked, live, keep, rounds, name, pick;
  short seen, take, doomed;
mark:
  atomic {
    AT_BOUNDARY;
    marked = 0; live = 0; keep = 0; name = 0; pick = 0; seen = 0; take = 0; doomed = 0;
    if
    :: rounds < ROUNDS -> rounds++
    :: else -> goto done
    fi;
    marked = position; seen = open;
    d_step { live_chunks(); live = L_; L_ = 0 };
#ifdef BUG_CLOSURE
    /* the mark forgets what a node is made of: A counts only where somebody names it alone */
    if
    :: (live & BOTH) == BOTH && !(HAS(alive, 0) && payload[0] == A) && !(HAS(alive, 1) && payload[1] == A) ->
       live = live & ~A
    :: else
    fi;
#endif
#ifdef BUG_VIEW
  }
  atomic {
    seen = open;                           /* the containers of a later position than the live set */
#endif
    do                                     /* what to take */
    :: pick < CONTAINERS && HAS(seen, pick) && take == 0 -> take = take | BIT(pick); pick++
#ifdef SEVERAL
    :: pick < CONTAINERS && HAS(seen, pick) && take != 0 -> take = take | BIT(pick); break
#endif
    :: pick < CONTAINERS -> pick++
    :: pick >= CONTAINERS || take != 0 -> break
    od;
    pick = 0;
    d_step {                               /* what of it must be copied */
      q_ = 0;
      do
      :: q_ < CHUNKS ->
         if
         :: HAS(live, q_) ->
#ifdef BUG_NEWEST
            /* any other container will do, also one that is taken too, or is older */
            c_ = 0;
            do
            :: c_ < CONTAINERS ->
               if
               :: HAS(take, c_) && HAS(holds[c_], q_) ->
                  find_newest(q_, seen & ~BIT(c_));
                  if
                  :: newest_ == NONE -> keep = keep | BIT(q_)
                  :: else
                  fi
               :: else
               fi;
               c_++
            :: else -> break
            od; c_ = 0
#else
            find_newest(q_, seen);
            if
            :: newest_ != NONE && HAS(take, newest_) -> keep = keep | BIT(q_)
            :: else
            fi
#endif
         :: else
         fi;
         q_++
      :: else -> break
      od; q_ = 0; newest_ = 0
    };
    live = 0; seen = 0;
    name = NONE;
    if
    :: keep != 0 ->
       if
       :: take & ~files -> goto mark       /* another collector was here: mark again */
       :: else
       fi;
       name = COLLECTOR_NAME;
       d_step {
         holds[name] = keep; base[name] = marked; files = files | BIT(name)
       };
#ifdef SEVERAL
       if                                  /* in one new container, or in two */
       :: (keep & BOTH) == BOTH ->
          d_step {
            holds[name] = keep & ~B; holds[name + 1] = keep & B;
            base[name + 1] = marked; files = files | BIT(name + 1)
          }
       :: skip
       fi;
#endif
#ifdef DIFFS
       if                                  /* whole */
#ifdef BUG_BASE_LEFT
       :: HAS(keep, 1) && !HAS(keep, 0) -> diff[name] = B    /* as it is stored, base or no base */
#elif defined(BUG_BASE_ELSEWHERE)
       :: HAS(keep, 1) && !HAS(keep, 0) -> diff[name] = B; far[name] = 1
#endif
       :: (holds[name] & BOTH) == BOTH -> diff[name] = B     /* both live: a new difference */
#ifdef KEYS
       :: (holds[name] & 12) == 12 -> diff[name] = 8
#ifdef BUG_KEY_BASE
       :: (holds[name] & 9) == 9 -> diff[name] = 8; alien_base[name] = 1
#endif
#endif
#if !defined(BUG_BASE_LEFT) && !defined(BUG_BASE_ELSEWHERE) && !defined(KEYS)
       :: HAS(keep, 1) && !HAS(keep, 0) && (take & ~0) ->    /* the old difference, its base beside it */
          d_step {
            c_ = 0;
            do
            :: c_ < CONTAINERS && !(HAS(take, c_) && HAS(diff[c_], 1)) -> c_++
            :: else -> break
            od;
            if
            :: c_ < CONTAINERS && HAS(holds[c_], 0) -> holds[name] = holds[name] | A; diff[name] = B
            :: else
            fi;
            c_ = 0
          }
#endif
       :: skip
       fi;
#endif
#ifdef BUG_KEY_SEAL
       alien[name] = keep & 12;            /* all of it under the collector's own key */
#endif
       keep = 0
    :: else
    fi
  }
#ifdef BUG_ORDER
  d_step { files = files & ~take; SAFE() };   /* before the settle is in the log */
#endif
  atomic {
    half == 0;
    if
    :: skip
    :: goto mark                           /* a crash: what was copied is an orphan */
    fi;
#if !defined(BUG_FENCE) && !defined(BUG_FENCE_SETTLE)
    if
    :: name != NONE && base[name] < fence -> goto mark
    :: else
    fi;
#endif
    d_step { removed = removed | take; open = open & ~take };
#ifdef BUG_SPLIT
    d_step { position++; SAFE() };         /* what is removed is one event, what is added the next */
  }
  atomic {
    half == 0;
#endif
    d_step {
      if
      :: name != NONE ->
         open = open | BIT(name); order[name] = position; base[name] = 0;
#ifdef SEVERAL
         if
         :: holds[name + 1] != 0 ->
            open = open | BIT(name + 1); order[name + 1] = position; base[name + 1] = 0
         :: else
         fi
#endif
      :: else
      fi;
      fence = (marked > fence -> marked : fence); position++;
      marked = 0; name = 0; take = 0;
      SAFE()
    }
  }
  atomic {
    if
    :: skip
    :: goto mark                           /* a crash: the files are left to a later round */
    fi;
    d_step {
      n_ = 0;
      do
      :: n_ < CONTAINERS ->
         if
#ifdef BUG_ORPHANS
         :: HAS(files, n_) && !HAS(open, n_) -> doomed = doomed | BIT(n_)
#else
         :: HAS(files, n_) && (HAS(removed, n_) || (!HAS(open, n_) && base[n_] < fence)) ->
            doomed = doomed | BIT(n_)
#endif
         :: else
         fi;
         n_++
      :: else -> break
      od; n_ = 0
    }
  }
  atomic {
    d_step { files = files & ~doomed; doomed = 0; SAFE() };   /* as much later as it likes */
    goto mark
  }
done:
  rounds = 0
}

/* --- readers ----------------------------------------------------------------------------------- */

/* Resolves a chunk of a checkpoint, and reads it some time later. Holds no lease. */
proctype Reader() {
  byte who, what, where, seen;
  atomic {
    AT_BOUNDARY;
    if
    :: HAS(alive, 0) -> who = 0
    :: HAS(alive, 1) -> who = 1
    :: alive == 0 -> goto done
    fi;
    seen = payload[who];
#ifdef KEYS
    if
    :: HAS(destroyed, key[who]) -> goto done
    :: else
    fi;
    if
    :: HAS(seen, 3) -> what = 3
    :: HAS(seen, 2) && !HAS(seen, 3) -> what = 2
    :: HAS(seen, 1) -> what = 1
    :: HAS(seen, 0) && !HAS(seen, 1) -> what = 0
    fi;
#else
    if
    :: HAS(seen, 1) -> what = 1
    :: else -> what = 0
    fi;
#endif
    d_step { find_newest(what, open); where = newest_; newest_ = 0 }
    assert(where != NONE)
  }
  do
  :: atomic {
       if
       :: HAS(files, where) -> goto done   /* what was opened can be read, whatever happens now */
       :: else ->
#ifdef BUG_REREAD
          assert(!HAS(alive, who) || payload[who] != seen); goto done
#else
          AT_BOUNDARY;                     /* catch up, resolve again */
          if
          :: !HAS(alive, who) || payload[who] != seen -> goto done   /* gone, and said to be */
#ifdef KEYS
          :: HAS(destroyed, key[who]) -> goto done
#endif
          :: else
          fi;
          d_step { find_newest(what, open); where = newest_; newest_ = 0 };
          assert(where != NONE)
#endif
       fi
     }
  od;
done:
  skip;
  d_step { who = 0; what = 0; where = 0; seen = 0 }
}

/* --- the run ----------------------------------------------------------------------------------- */

init {
  byte turn;
  d_step {                                 /* checkpoint 0 has A and B, in two containers */
    payload[0] = BOTH; alive = 1;
    open = BIT(0) | BIT(1); files = open; order[1] = 1; position = 2;
#ifdef DIFFS
    holds[0] = BOTH; diff[0] = B; holds[1] = A;
#else
    holds[0] = A; holds[1] = B;
#endif
#ifdef TWICE
    holds[2] = A; open = open | BIT(2); files = open; order[2] = 2; position = 3;
#endif
  }
  atomic {
    do
    :: turn < WRITERS -> run Writer(turn); turn++
    :: else -> break
    od; turn = 0;
    do
    :: turn < COLLECTORS -> run Collector(turn); turn++
    :: else -> break
    od; turn = 0;
    do
    :: turn < READERS -> run Reader(); turn++
    :: else -> break
    od; turn = 0;
#ifdef KEYS
    run Shredder();
#endif
    run Deleter()
  }
  timeout;
  /* All are done, or stopped for good: one more collection, and nothing dead is left. Settled
   * containers stand in the place of new ones; it means the same, and keeps the pool small. */
  d_step {
    fence = position; position++; turn = 0;
    do
    :: turn < CONTAINERS ->
       live_chunks();
       if
       :: HAS(open, turn) && (holds[turn] & ~L_) ->
          held_ = holds[turn] & L_; c_ = 0;
          do
          :: c_ < CHUNKS ->
             find_newest(c_, open);
             if
             :: HAS(held_, c_) && newest_ != turn -> held_ = held_ & ~BIT(c_)
             :: else
             fi;
             c_++
          :: else -> break
          od; c_ = 0;
          removed = removed | BIT(turn); open = open & ~BIT(turn);
          if
          :: held_ != 0 ->
             open = open | BIT(turn); holds[turn] = held_; order[turn] = position; position++;
             removed = removed & ~BIT(turn);
#ifdef DIFFS
             diff[turn] = 0
#endif
          :: else
          fi
       :: else
       fi;
       if
       :: HAS(files, turn) && !HAS(open, turn) -> files = files & ~BIT(turn)
       :: else
       fi;
       turn++
    :: else -> break
    od;
    held_ = 0;
    SAFE();
    live_chunks(); turn = 0;
    do
    :: turn < CONTAINERS -> assert(!HAS(files, turn) || !(holds[turn] & ~L_)); turn++
    :: else -> break
    od;
    L_ = 0
  }
}
