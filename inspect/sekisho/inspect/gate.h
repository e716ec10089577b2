/* The gate: the packet path of the hold (docs/decisions/0002-the-gate.md).
 *
 * One netfilter queue, one thread. Python (sekisho.inspect.gate) calls gate_run(), which moves
 * packets until something needs a decision, and answers with gate_release() or gate_cut().
 * The gate parses IP and TCP headers only; payload is copied into a spool, never interpreted.
 * Everything here is bounded: flows, held packets, spooled bytes.
 */
#ifndef SEKISHO_GATE_H
#define SEKISHO_GATE_H
#include <stddef.h>
#include <stdint.h>

enum { GATE_TO_SERVER = 0, GATE_TO_CLIENT = 1 };

enum gate_note_kind {
    GATE_PAUSE = 1,    /* the tail of an unfinished object waits and nothing follows (yet): look at the spool */
    GATE_FRAME = 2,    /* a long object is on its way: look at what is there, nothing waits for the answer but gate_expect */
    GATE_COMPLETE = 3, /* the object's end (gate_expect, a final chunk, a final dot, FIN) is in the spool */
    GATE_TOO_BIG = 4,  /* the object passed the scan limit */
    GATE_EXPIRED = 5,  /* a packet waited longer than the verdict deadline */
    GATE_SHED = 6,     /* no memory for this object's spool; its tail is not held */
    GATE_WITHHELD = 8, /* after a cut that found nothing held: the first new bytes have been withheld now */
    GATE_KNOWN = 9, /* the engine knows the file that the newest packet completes; it is held: cut */
    GATE_GONE = 7      /* the flow ended; its handle is no longer valid */
};

struct gate_config {
    uint32_t queue;
    uint32_t fail_open;
    uint32_t max_flows;
    uint32_t max_held;        /* packets, all flows together */
    uint64_t spool_limit;     /* bytes per object */
    uint64_t spool_total;     /* bytes, all flows together */
    uint64_t depth;           /* bytes of a response stream the engine reassembles */
    uint32_t deadline_ms;     /* longest wait of one packet */
    uint32_t pause_us;        /* shortest silence that counts as a pause */
};

struct gate_key {
    uint8_t client[16], server[16]; /* network order; IPv4 in the first four bytes, the rest zero */
    uint16_t client_port, server_port; /* host order */
    uint8_t family;                    /* 4 or 6 */
    uint8_t pad[3];
};

struct gate_note {
    uint32_t kind;
    uint32_t dir;
    uint64_t flow;
    uint64_t length; /* contiguous bytes in the spool */
    uint64_t base;   /* bytes of this direction before the spool */
    uint32_t ended;  /* the sender has said that nothing follows (FIN) */
    uint32_t joined; /* the spool may begin in the middle of something */
};

struct gate_stats {
    uint64_t packets, held, released, dropped, cut, shed, flows, spooled, overruns, holding;
};

struct gate;

struct gate *gate_open(const struct gate_config *config, int *error);
/* As gate_open, without a kernel queue: verdicts are recorded instead of sent. For tests and fuzzing. */
struct gate *gate_open_dry(const struct gate_config *config);
void gate_close(struct gate *gate);

/* Move packets until a note is made, one of `fds` is readable or `timeout_us` passed. Packets that were
 * read together with a readable fd are staged and processed at the *next* call, so that what the engine
 * said about them is heard first. Returns the number of notes; *ready has bit i set for fds[i]. */
int gate_run(struct gate *gate, const int *fds, int nfds, uint32_t *ready, struct gate_note *notes, int max_notes,
             int64_t timeout_us);

/* The flow between these two ends, whichever of them is the client, made if `kind` (HTTP, MAIL, FTPDATA bits
 * of the mark) is not 0; *dir tells which way `key->client` sends. 0 when unknown or the table is full. */
uint64_t gate_find(struct gate *gate, const struct gate_key *key, uint32_t kind, uint32_t *dir);
/* 0 and the flow's ends; -1 when the handle is stale. */
int gate_key_of(struct gate *gate, uint64_t flow, struct gate_key *key, uint32_t *kind);

/* The first `upto` spooled bytes were found clean: packets within them go on. `finished` bytes of them
 * belong to complete objects and leave the spool. */
void gate_release(struct gate *gate, uint64_t flow, uint32_t dir, uint64_t upto, uint64_t finished);
/* Say that the current object ends so many bytes after the stream's beginning (note.base plus a spool offset). */
void gate_expect(struct gate *gate, uint64_t flow, uint32_t dir, uint64_t end);
/* Stop looking at this direction: up to the expected end if known, else for the rest of the flow. Its packets are marked,
 * so that the coverage tells them from what was looked at: `sealed` that nobody could have read them. */
void gate_pass(struct gate *gate, uint64_t flow, uint32_t dir, int sealed);
/* Files travel mixed on this flow, so that one may end in the middle of what is sent: from now on nothing is let through
 * because more follows, only by gate_release. */
void gate_gather(struct gate *gate, uint64_t flow);
/* Withhold what is held and reset both ends; for mail, answer the client with `reply` (CRLF-terminated)
 * first. Returns how many payload bytes (FIN counts one) the receiver will never get. 0 = nothing waited
 * here: either the completing packet is still on its way (GATE_WITHHELD follows) or the receiver had it all. */
int64_t gate_cut(struct gate *gate, uint64_t flow, uint32_t dir, const char *reply, uint32_t reply_length);
/* The receiver gets these bytes instead of the spooled ones at `offset`, in retransmissions too. As long as the
 * original, so that every sequence number and length that protocols count stays right. -1: a part of them has been
 * delivered already (gate_delivered tells how far), is not spooled yet, or there are too many patches. */
int gate_rewrite(struct gate *gate, uint64_t flow, uint32_t dir, uint64_t offset, const uint8_t *bytes, uint32_t length);
/* Spool offset behind the last byte that was let through. */
uint64_t gate_delivered(struct gate *gate, uint64_t flow, uint32_t dir);
/* The beginning of the client's newest HTTP request; its length, at most 1024. */
uint32_t gate_asked(struct gate *gate, uint64_t flow, char *into, uint32_t room);
/* The spool's file descriptor (stays the gate's) and contiguous length; -1 when there is none. */
int gate_spool(struct gate *gate, uint64_t flow, uint32_t dir, uint64_t *length);
/* What a refused HTTP request is answered with, by the number of the function that refuses (marks.WHY); 0 stands in
 * for those without one. A whole response of at most GATE_PAGE_MAX bytes, "Connection: close" among its fields, in which
 * GATE_REFERENCE is replaced by month, day, time (UTC) and client port. Length 0 takes the page away: a reset instead.
 * -1 when it is too long. GATE_PAGE_FILE is for gate_cut: a response none of which was delivered is replaced by it; GATE_PAGE_KNOWN
 * is that of a file the engine knew. */
enum { GATE_PAGES = 16, GATE_PAGE_KNOWN = 7, GATE_PAGE_FILE = 15, GATE_PAGE_MAX = 1220 };
#define GATE_REFERENCE "MMDD-HHMMSS-PPPPP"
int gate_set_page(struct gate *gate, uint32_t why, const char *bytes, uint32_t length);
void gate_get_stats(struct gate *gate, struct gate_stats *stats);

/* The gate goes from one process to its successor with its queue and all it knows (docs/decisions/0038-the-successor-gate.md).
 * The number says which layout its memory has: only a gate with the same can read it. */
uint32_t gate_format(void);
/* Write all that is known into the file `image` and name the spools' descriptors, which stay the gate's, in `fds`; how many,
 * or -1. Packets are not read meanwhile; nothing is changed, so that whoever is not succeeded goes on. */
int gate_freeze(struct gate *gate, int image, int *fds, uint32_t room);
/* The queue's socket, to be handed over with them. */
int gate_queue_fd(struct gate *gate);
/* Go on where another process stopped, with a fresh gate of gate_open_dry (made beforehand, for that takes time): `queue`
 * is the other's socket (-1: the gate stays dry), `image` and `fds` (which become the gate's) what gate_freeze made. With
 * image -1 the queue alone is taken over, and connections are met in their middle. Looks that were under way are asked for
 * again. 0; or an error: this is no image for these limits, and the gate is only good for gate_leave. */
int gate_adopt(struct gate *gate, int queue, int image, const int *fds, uint32_t count);
/* The successor has it: free everything and decide nothing. `drop`: it knows nothing of what is held, whose senders
 * repeat it. */
void gate_leave(struct gate *gate, int drop);
/* Ask for this look once more (GATE_FRAME, of which the gate keeps no account). */
void gate_again(struct gate *gate, uint64_t flow, uint32_t dir, uint32_t kind);

/* Test surface: feed one packet as the queue would, read back what was decided. */
struct gate_verdict {
    uint32_t id, verdict, mark, length;
    uint8_t packet[4096];
};
void gate_feed(struct gate *gate, uint32_t id, uint32_t mark, const uint8_t *packet, uint32_t length, int64_t now_us);
void gate_tick(struct gate *gate, int64_t now_us);
int gate_take_notes(struct gate *gate, struct gate_note *notes, int max_notes);
int gate_take_verdicts(struct gate *gate, struct gate_verdict *verdicts, int max);
#endif
