/* The log as create-only objects: a commit is one PUT of log/<n> that succeeds if there is no log/<n>.
 *
 * Several machines, no lock. A writer may be suspended for as long as it likes between two steps; the
 * answer to a PUT may be lost, so that it does not know whether it won; it may crash and begin again
 * with the same command and nothing remembered. A collector merges old objects into one that readers
 * begin at.
 *
 * What must hold: a position is given out once, and a command is in the log at most once (`put`).
 *
 * The rules, and the flag that breaks each:
 *   STAYS  log/<n> never becomes absent; it is overwritten in place by its event-only body   BUG_ABSENT
 *   ID     the command's id is looked up, up to the tail, before the PUT                     BUG_ID
 *   NEXT   the PUT goes to the position right behind all that was looked through             BUG_SKIP
 */
#ifndef WRITERS
#define WRITERS 3
#endif
#ifndef SLOTS
#define SLOTS 5
#endif
#define TRIES 3
#define ROUNDS 2
#define FIRST 9             /* the command of the log's first commit */
#define BIT(n) (1 << (n))

byte object[SLOTS];         /* the command in log/<n>; 0: absent */
byte truth[SLOTS];          /* what the log says at n for ever */
byte merged;                /* positions below are in the merged object too; readers begin there */
byte head;
byte acknowledged;          /* commands whose callers were told that they are durable */
hidden byte n_;

/* PUT if absent. */
inline put(position, command, won) {
  atomic {
    if
    :: object[position] == 0 ->
       object[position] = command; won = 1;
       assert(truth[position] == 0);                    /* given out before */
       n_ = 1;
       do
       :: n_ < SLOTS -> assert(truth[n_] != command); n_++   /* in the log before */
       :: else -> break
       od;
       n_ = 0;
       truth[position] = command;
       head = (position >= head -> position + 1 : head)
    :: else -> won = 0
    fi
  }
}

proctype Writer(byte command) {
  byte position, tries;
  bit won, found;
begin:
  atomic {
    won = 0; found = 0; position = 0;
    if
    :: tries < TRIES -> tries++
    :: else -> goto done
    fi;
    position = merged; n_ = 1;             /* the merged object is one read */
    do
    :: n_ < merged -> found = (truth[n_] == command -> 1 : found); n_++
    :: else -> break
    od;
    n_ = 0
  }
  do                                        /* the rest is looked through object by object */
  :: position < SLOTS && object[position] != 0 ->
     found = (object[position] == command -> 1 : found); position++
  :: position < SLOTS && object[position] == 0 -> break
  :: position >= SLOTS -> goto done
  od;
#ifndef BUG_ID
  if
  :: found -> acknowledged = acknowledged | BIT(command); goto done
  :: else
  fi;
#endif
#ifdef BUG_SKIP
  if
  :: position + 1 < SLOTS -> position++
  :: skip
  fi;
#endif
  put(position, command, won);
#ifdef BUG_SKIP
  assert(!won || truth[position - 1] != 0);    /* positions are dense */
#endif
  if
  :: goto begin                             /* the answer is lost, or a crash */
  :: won -> acknowledged = acknowledged | BIT(command)
  :: !won -> goto begin                     /* another machine was first */
  fi;
done:
  position = 0
}

proctype Collector() {
  byte rounds;
  do
  :: atomic {
       rounds < ROUNDS -> rounds++;
       if
       :: merged + 1 < head -> merged++
       :: else -> goto done
       fi
     }
#ifdef BUG_ABSENT
     atomic { object[merged - 1] = 0 }
#endif
  :: rounds >= ROUNDS -> break
  od;
done:
  rounds = 0
}

init {
  byte turn;
  atomic {
    object[0] = FIRST; truth[0] = FIRST; head = 1; turn = 1;
    do
    :: turn <= WRITERS -> run Writer(turn); turn++
    :: else -> break
    od;
    turn = 0;
    run Collector()
  }
  timeout;
  /* What a caller was told is in the log, and the log has no holes. */
  d_step {
    turn = 1;
    do
    :: turn <= WRITERS ->
       if
       :: acknowledged & BIT(turn) ->
          n_ = 1;
          do
          :: n_ < SLOTS && truth[n_] != turn -> n_++
          :: else -> break
          od;
          assert(n_ < SLOTS); n_ = 0
       :: else
       fi;
       turn++
    :: else -> break
    od;
    turn = 1;
    do
    :: turn < SLOTS -> assert(truth[turn] == 0 || truth[turn - 1] != 0); turn++
    :: else -> break
    od
  }
}
