/* See gate.h for the contract and docs/decisions/0002-the-gate.md for why it is like this. */
#define _GNU_SOURCE
#include "gate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MARK_SEEN = 0x1,
    MARK_BYPASS = 0x2, /* on a packet from here: nobody can read it */
    MARK_LARGE = 0x4,
    MARK_REPLY = 0x8,
    MARK_HTTP = 0x10,
    MARK_MAIL = 0x20,
    MARK_FTPDATA = 0x40,
    MARK_CUT = 0x80,
    MARK_PPPOE = 0x100,
    MARK_DEEP = 0x200,
    MARK_REFUSE = 0x400,
    MARK_ENGINE_SHIFT = 12, /* marks.ENGINE: which of the engine's queues this flow goes through */
    MARK_WHY_SHIFT = 20, /* marks.WHY: which function refuses, and so which page it is answered with */
    MARK_SCARCE = 0x10000,
    MARK_POP3 = 0x20000,
    MARK_IMAP = 0x40000,
    MARK_SMB = 0x80000,
    MARK_WATCHED = 0x1000000, /* marks.WATCHED */
    MARK_ENGINE_HIGH = 0x2000000, /* marks.ENGINE_HIGH: the queue's fifth bit */
    MARK_FILES = MARK_HTTP | MARK_MAIL | MARK_FTPDATA | MARK_POP3 | MARK_IMAP | MARK_SMB,

    BATCH = 64,
    PACKET_MAX = 65536 + 512,
    HEADER_MAX = 192,
    SPANS = 32,
    PROBES = 4,
    CUT_QUIET_US = 300000,
    REPLY_MAX = 512,
    LINGER_US = 2000000, /* a client that has the page whole gets so long to close its end */
    NOTES = 512,
    FLOW_IDLE_US = 180 * 1000000,
    UNFINISHED_IDLE_US = 1800 * 1000000,
    SPOOL_IDLE_US = 5 * 1000000,
    SINK_IDLE_US = 1000000,
    PAUSE_MAX_US = 1000000,
    SHED_PAUSE_US = 200000,
    FORMAT = 1, /* of an image (gate_freeze): one more whenever a struct that is in it, or what its numbers mean, changes */
    SPOOL_FIRST = 65536,
    SPOOL_SLACK = 4 << 20,  /* what comes while an object is found too big */
    WINDOW_MAX = 64 << 20,  /* what lies further ahead is of another connection, not seen to begin */
    EAGER = 65536,        /* an object of at most so many bytes is looked at whenever its sender pushes */
    FRAME_AT = 65536,     /* there, and at 32, 1024, ... times as much, a longer one is looked at on its way: a page is
                             read while it comes */
    TAIL_MIN = 4096,      /* a compressed file's last bytes are its check sum: hold more than those */
    GATHER_MAX = 4096,    /* packets held of one mailbox stream */
    GATHER_LOOK = 128 << 10,
    PATCHES = 64,
    ASKED_MAX = 1024,
    UNKNOWN_MAX = 65536, /* a stream that the engine has not recognised by then it never will */
};

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10, URG = 0x20 };
enum { OPEN, SINK, CUT };

struct packet { /* a parsed view into a received buffer */
    uint32_t id, mark;
    const uint8_t *data;
    uint32_t length;  /* L3 bytes */
    uint32_t l4;      /* offset of the TCP header */
    uint32_t payload; /* offset of the payload */
    uint32_t plen;
    uint32_t seq, ack;
    uint8_t flags;
    struct gate_key key;
    uint32_t dir;
};

struct held {
    struct held *next;
    uint32_t id, mark, seq, ack, plen, length, l4, payload;
    uint8_t flags, header_length;
    uint8_t last[5]; /* the payload's last bytes, for the end of DATA */
    uint8_t header[HEADER_MAX];
    int64_t since;
};

struct span {
    uint64_t from, to;
};

struct patch { /* bytes that the receiver gets instead of those the sender sent */
    uint32_t seq, length;
    uint8_t *bytes;
};

struct direction {
    uint8_t seen, idle, pass, deep, shed, checking, noted_expired, noted_big, frames, holes, fin;
    uint8_t joined;     /* what came before the spool was not seen: it may begin anywhere */
    uint8_t topped;     /* `top` is valid */
    uint8_t anchored;   /* the receiver has said what it has: nothing unseen lies before `base` */
    uint8_t stale;      /* `base` moved while the spool was being looked at */
    uint32_t unread;    /* marks.LARGE, SCARCE or BYPASS: why its packets go unlooked at */
    uint32_t top;       /* sequence number behind the last byte let through */
    uint32_t last;      /* sequence number behind the last byte there is, once `fin` is set */
    uint32_t base;      /* sequence number of spool offset 0 */
    uint64_t contig;    /* contiguous bytes from base */
    uint64_t expect;    /* offset at which the object ends, 0 = unknown */
    uint64_t stream;    /* contiguous bytes before base, since the flow was first seen */
    uint64_t looked;     /* `contig` when the spool was last looked at */
    uint64_t frame;      /* mixed, aligned: where the next frame begins */
    uint64_t edge;       /* behind the last frame header that was not looked at and at which a file may end; 0 = none */
    uint32_t number;     /* the stream whose data came last */
    uint8_t aligned;     /* `frame` is known */
    uint8_t end_said;    /* a look was asked for that knows that nothing follows */
    uint32_t holding, held_bytes;
    struct patch *patch; /* PATCHES of them, made at the first one */
    int patches;
    struct span hole[SPANS]; /* data beyond contig, unordered and disjoint from it */
    struct held *head, *tail;
    int64_t tail_since;
    int fd;
    uint8_t *map;
    uint64_t capacity;
};

struct flow {
    struct gate_key key;
    uint32_t generation, next_hash, kind;
    uint8_t used, met, begun, state, waiting, replied, force, closing, owes_note, fresh_sink, engine, resets;
    uint8_t opening;     /* 1 + the direction of a SYN between the same ports */
    uint32_t opened;     /* what an end that takes it acknowledges */
    uint8_t mixed;       /* many files travel at once, both ways */
    uint8_t page, heard; /* SINK: the reply is a page; the client has acknowledged it */
    uint8_t known;       /* the engine knew a file of it */
    uint8_t rigid;       /* the encapsulation counts its bytes (PPPoE): no packet may change its length */
    uint32_t wait_index;
    int64_t touched;
    struct direction dir[2];
    uint32_t c_max, s_ack, s_seq; /* SINK: what the client sent, what the server has, the server's next */
    uint8_t last[5];
    struct held *ammo;
    char *reply;
    uint32_t reply_length;
    char *asked; /* the head of the client's newest request, as far as ASKED_MAX */
    uint32_t asked_length;
};

struct beginning { /* what a client has sent while nobody knows what the connection is for */
    struct gate_key key;
    uint32_t first, next; /* the stream's first sequence number; the one behind all that was let through */
    uint32_t next_hash;
    uint8_t used, read, http;  /* its first line is over; it was an HTTP request's */
    uint8_t line[16], written; /* the newest bytes of its first line, as a ring; how many were put there, modulo 256 */
};

struct page {
    char *bytes;
    uint32_t length;
};

struct gate {
    struct gate_config config;
    struct mnl_socket *nl;
    int fd;
    int64_t now;
    struct flow *flows;
    uint32_t *hash;
    uint32_t hash_mask, free_head, high_water; /* unused flow slots, most recently freed first */
    uint32_t *waiting; /* flows with something held */
    uint32_t waiting_count;
    struct held *pool, *pool_free;
    struct gate_stats stats;
    struct gate_note notes[NOTES];
    int note_count;
    uint8_t *buffers;
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    int staged;
    uint8_t tx[BATCH * 256 + PACKET_MAX];
    uint32_t tx_length;
    int64_t swept;
    uint32_t sweep_at;
    int dry;
    struct gate_verdict *verdicts;
    int verdict_count, verdict_room;
    struct page pages[GATE_PAGES];
    struct beginning *beginnings; /* a ring: the oldest gives way */
    uint32_t *beginning_hash, beginning_count, beginning_at;
};

static int64_t clock_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* A dry gate lives in the time its packets are fed with. */
static void set_now(struct gate *g) {
    if (!g->dry) g->now = clock_us();
}

static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }
static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static void put32(uint8_t *p, uint32_t v) { p[0] = v >> 24; p[1] = v >> 16; p[2] = v >> 8; p[3] = v; }
static void put16(uint8_t *p, uint32_t v) { p[0] = v >> 8; p[1] = v; }

/* ---- parsing ------------------------------------------------------------------------------------ */

/* Locate TCP inside an IP packet. 0 on success; -1: not ours to judge, let through; UNREADABLE: TCP behind more
 * extension headers than anybody honest sends. */
enum { UNREADABLE = -2 };

static int parse(struct packet *p) {
    const uint8_t *d = p->data;
    uint32_t n = p->length, at, end;
    const uint8_t *src, *dst;
    uint32_t alen;
    if (n < 20) return -1;
    memset(&p->key, 0, sizeof p->key);
    if (d[0] >> 4 == 4) {
        at = (d[0] & 15) * 4u;
        end = get16(d + 2);
        if (at < 20 || end > n || end < at || d[9] != IPPROTO_TCP || (get16(d + 6) & 0x3fff)) return -1;
        src = d + 12, dst = d + 16, alen = 4;
    } else if (d[0] >> 4 == 6) {
        if (n < 40) return -1;
        uint8_t next = d[6];
        at = 40;
        end = 40u + get16(d + 4);
        if (end > n) return -1;
        for (int hops = 0; next == 0 || next == 43 || next == 60; hops++) {
            if (at + 8 > end) return -1;
            if (hops == 8) return UNREADABLE;
            next = d[at];
            at += (d[at + 1] + 1u) * 8;
        }
        if (next != IPPROTO_TCP) return -1;
        src = d + 8, dst = d + 24, alen = 16;
    } else {
        return -1;
    }
    if (at + 20 > end) return -1;
    if (at + 20 > HEADER_MAX) return UNREADABLE;
    uint32_t thl = (d[at + 12] >> 4) * 4u;
    if (thl < 20 || at + thl > end) return -1;
    if (at + thl > HEADER_MAX) return UNREADABLE;
    p->length = end;
    p->l4 = at;
    p->payload = at + thl;
    p->plen = end - p->payload;
    p->seq = get32(d + at + 4);
    p->ack = get32(d + at + 8);
    p->flags = d[at + 13];
    p->dir = p->mark & MARK_REPLY ? GATE_TO_CLIENT : GATE_TO_SERVER;
    p->key.family = alen == 4 ? 4 : 6;
    int reply = p->dir == GATE_TO_CLIENT;
    memcpy(reply ? p->key.server : p->key.client, src, alen);
    memcpy(reply ? p->key.client : p->key.server, dst, alen);
    *(reply ? &p->key.server_port : &p->key.client_port) = get16(d + at);
    *(reply ? &p->key.client_port : &p->key.server_port) = get16(d + at + 2);
    return 0;
}

static uint16_t fold(uint32_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint32_t add(uint32_t sum, const uint8_t *p, uint32_t n) {
    for (; n > 1; p += 2, n -= 2) sum += get16(p);
    return n ? sum + ((uint32_t)p[0] << 8) : sum;
}

/* Lengths and checksums (RFC 9293 3.1, RFC 8200 8.1) of a packet rebuilt in place. */
static void finish_packet(uint8_t *d, uint32_t l4, uint32_t length) {
    uint32_t tcp = length - l4, sum = IPPROTO_TCP + tcp;
    put16(d + l4 + 16, 0);
    if (d[0] >> 4 == 4) {
        put16(d + 2, length);
        put16(d + 10, 0);
        put16(d + 10, fold(add(0, d, (d[0] & 15) * 4u)));
        sum = add(sum, d + 12, 8);
    } else {
        put16(d + 4, length - 40);
        sum = add(sum, d + 8, 32);
    }
    put16(d + l4 + 16, fold(add(sum, d + l4, tcp)));
}

/* Whether a receiver would take this segment: one with a wrong check sum is there for the inspector alone. */
static int sum_holds(const struct packet *p) {
    const uint8_t *d = p->data;
    uint32_t tcp = p->length - p->l4, sum = IPPROTO_TCP + tcp;
    sum = d[0] >> 4 == 4 ? add(sum, d + 12, 8) : add(sum, d + 8, 32);
    return fold(add(sum, d + p->l4, tcp)) == 0;
}

/* ---- verdicts ----------------------------------------------------------------------------------- */

static void flush(struct gate *g) {
    if (g->tx_length && g->nl) {
        if (mnl_socket_sendto(g->nl, g->tx, g->tx_length) < 0) g->stats.overruns++;
    }
    g->tx_length = 0;
}

static void decide(struct gate *g, uint32_t id, uint32_t verdict, uint32_t mark, const uint8_t *packet, uint32_t length) {
    if (verdict == NF_DROP) g->stats.dropped++;
    else g->stats.released++;
    if (g->dry) {
        if (g->verdict_count == g->verdict_room) {
            int room = g->verdict_room ? g->verdict_room * 2 : 64;
            void *more = realloc(g->verdicts, (size_t)room * sizeof *g->verdicts);
            if (!more) return;
            g->verdicts = more;
            g->verdict_room = room;
        }
        struct gate_verdict *v = &g->verdicts[g->verdict_count++];
        v->id = id, v->verdict = verdict, v->mark = mark, v->length = length;
        if (packet) memcpy(v->packet, packet, length < sizeof v->packet ? length : sizeof v->packet);
        return;
    }
    if (g->tx_length + 256 + length > sizeof g->tx) flush(g);
    struct nlmsghdr *nlh = nfq_nlmsg_put((char *)g->tx + g->tx_length, NFQNL_MSG_VERDICT, g->config.queue);
    nfq_nlmsg_verdict_put(nlh, (int)id, (int)verdict);
    if (mark) nfq_nlmsg_verdict_put_mark(nlh, mark);
    if (packet) nfq_nlmsg_verdict_put_pkt(nlh, packet, length);
    g->tx_length += NLMSG_ALIGN(nlh->nlmsg_len);
}

/* The sender has said that nothing follows, and everything before that has come. */
static int all_here(const struct direction *d) { return d->fin && d->last - d->base == (uint32_t)d->contig; }

static void note(struct gate *g, struct flow *f, uint32_t dir, uint32_t kind) {
    if (g->note_count == NOTES) return;
    struct gate_note *n = &g->notes[g->note_count++];
    n->kind = kind;
    n->dir = dir;
    n->flow = (uint64_t)f->generation << 32 | (uint32_t)(f - g->flows + 1);
    n->length = f->dir[dir].contig;
    n->base = f->dir[dir].stream;
    n->ended = all_here(&f->dir[dir]);
    f->dir[dir].end_said |= n->ended;
    n->joined = f->dir[dir].joined;
}

/* ---- flows -------------------------------------------------------------------------------------- */

static uint32_t hash_key(const struct gate_key *k) {
    uint64_t h = 1469598103934665603u;
    const uint8_t *p = (const uint8_t *)k;
    for (size_t i = 0; i < offsetof(struct gate_key, pad); i++) h = (h ^ p[i]) * 1099511628211u;
    return (uint32_t)(h ^ h >> 32);
}

static int same_key(const struct gate_key *a, const struct gate_key *b) {
    return !memcmp(a, b, offsetof(struct gate_key, pad));
}

static struct gate_key turned(const struct gate_key *key) {
    struct gate_key other = *key;
    memcpy(other.client, key->server, 16);
    memcpy(other.server, key->client, 16);
    other.client_port = key->server_port;
    other.server_port = key->client_port;
    return other;
}

static struct flow *lookup(struct gate *g, const struct gate_key *key) {
    uint32_t i = g->hash[hash_key(key) & g->hash_mask];
    for (; i; i = g->flows[i - 1].next_hash)
        if (same_key(&g->flows[i - 1].key, key)) return &g->flows[i - 1];
    return NULL;
}

/* The flow between these ends; `turn`: its client is the key's server. An engine event knows sender and receiver, but
 * not who connected. */
static struct flow *lookup_either(struct gate *g, const struct gate_key *key, int *turn) {
    struct flow *f = lookup(g, key);
    *turn = 0;
    if (f) return f;
    struct gate_key other = turned(key);
    f = lookup(g, &other);
    *turn = f != NULL;
    return f;
}

static uint32_t *beginning_slot(struct gate *g, const struct gate_key *key) {
    uint32_t *slot = &g->beginning_hash[hash_key(key) & g->hash_mask];
    while (*slot && !same_key(&g->beginnings[*slot - 1].key, key)) slot = &g->beginnings[*slot - 1].next_hash;
    return slot;
}

static struct beginning *beginning_of(struct gate *g, const struct gate_key *key) {
    uint32_t i = *beginning_slot(g, key);
    return i ? &g->beginnings[i - 1] : NULL;
}

static void forget_beginning(struct gate *g, struct beginning *b) {
    *beginning_slot(g, &b->key) = b->next_hash;
    b->used = 0;
}

/* 0: it is known already, this is the answer to a first SYN once more. */
static int remember_beginning(struct gate *g, const struct gate_key *key, uint32_t first) {
    struct beginning *b = beginning_of(g, key);
    if (b && b->first == first) return 0;
    if (b) forget_beginning(g, b);
    b = &g->beginnings[g->beginning_at++ % g->beginning_count];
    if (b->used) forget_beginning(g, b);
    uint32_t *slot = &g->beginning_hash[hash_key(key) & g->hash_mask];
    *b = (struct beginning){.key = *key, .first = first, .next = first, .next_hash = *slot, .used = 1};
    *slot = (uint32_t)(b - g->beginnings) + 1;
    return 1;
}

static struct flow *by_handle(struct gate *g, uint64_t handle) {
    uint32_t i = (uint32_t)handle;
    if (!i || i > g->config.max_flows) return NULL;
    struct flow *f = &g->flows[i - 1];
    return f->used && f->generation == handle >> 32 ? f : NULL;
}

static struct flow *create(struct gate *g, const struct gate_key *key, uint32_t kind) {
    struct flow *f;
    if (g->free_head) {
        f = &g->flows[g->free_head - 1];
        g->free_head = f->next_hash;
    } else if (g->high_water < g->config.max_flows) {
        f = &g->flows[g->high_water++];
    } else {
        g->stats.shed++;
        return NULL;
    }
    uint32_t generation = f->generation + 1;
    memset(f, 0, sizeof *f);
    f->generation = generation;
    f->used = 1;
    f->key = *key;
    f->kind = kind;
    f->touched = g->now;
    f->dir[0].fd = f->dir[1].fd = -1;
    uint32_t *slot = &g->hash[hash_key(key) & g->hash_mask];
    f->next_hash = *slot;
    *slot = (uint32_t)(f - g->flows) + 1;
    g->stats.flows++;
    return f;
}

static void spool_free(struct gate *g, struct direction *d) {
    if (d->map) munmap(d->map, d->capacity);
    if (d->fd >= 0) close(d->fd);
    g->stats.spooled -= d->capacity;
    d->map = NULL;
    d->fd = -1;
    d->capacity = 0;
    d->holes = 0;
}

static struct held *pop(struct gate *g, struct direction *d) {
    struct held *h = d->head;
    if (h) {
        d->head = h->next;
        if (!d->head) d->tail = NULL;
        d->holding--;
        d->held_bytes -= h->plen;
        g->stats.holding--;
    }
    return h;
}

static void give_back(struct gate *g, struct held *h) {
    h->next = g->pool_free;
    g->pool_free = h;
}

static void wait_off(struct gate *g, struct flow *f) {
    if (!f->waiting || f->dir[0].head || f->dir[1].head || f->ammo) return;
    f->waiting = 0;
    uint32_t last = g->waiting[--g->waiting_count];
    g->waiting[f->wait_index] = last;
    g->flows[last].wait_index = f->wait_index;
}

static void wait_on(struct gate *g, struct flow *f) {
    if (f->waiting) return;
    f->waiting = 1;
    f->wait_index = g->waiting_count;
    g->waiting[g->waiting_count++] = (uint32_t)(f - g->flows);
}

static void drop_held(struct gate *g, struct direction *d) {
    for (struct held *h; (h = pop(g, d));) {
        decide(g, h->id, NF_DROP, 0, NULL, 0);
        give_back(g, h);
    }
}

/* Nothing of this flow goes on: what is held of it is dropped, what is known of its bytes forgotten. */
static void drop_all(struct gate *g, struct flow *f) {
    for (int i = 0; i < 2; i++) {
        drop_held(g, &f->dir[i]);
        spool_free(g, &f->dir[i]);
    }
    wait_off(g, f);
}

/* Forget the patches that lie before `acknowledged` (all of them without one): nobody asks for those bytes again. */
static void forget_patches(struct direction *d, const uint32_t *acknowledged) {
    for (int i = 0; i < d->patches;) {
        struct patch *p = &d->patch[i];
        if (acknowledged && (int32_t)(*acknowledged - (p->seq + p->length)) < 0) {
            i++;
            continue;
        }
        free(p->bytes);
        *p = d->patch[--d->patches];
    }
}

static void destroy(struct gate *g, struct flow *f) {
    for (int i = 0; i < 2; i++) {
        drop_held(g, &f->dir[i]);
        spool_free(g, &f->dir[i]);
        forget_patches(&f->dir[i], 0);
        free(f->dir[i].patch);
    }
    if (f->ammo) {
        decide(g, f->ammo->id, NF_DROP, 0, NULL, 0);
        give_back(g, f->ammo);
        f->ammo = NULL;
        g->stats.holding--;
    }
    wait_off(g, f);
    note(g, f, 0, GATE_GONE);
    uint32_t self = (uint32_t)(f - g->flows) + 1;
    uint32_t *slot = &g->hash[hash_key(&f->key) & g->hash_mask];
    while (*slot != self) slot = &g->flows[*slot - 1].next_hash;
    *slot = f->next_hash;
    free(f->reply);
    free(f->asked);
    f->reply = f->asked = NULL;
    f->used = 0;
    f->next_hash = g->free_head;
    g->free_head = self;
    g->stats.flows--;
}

/* ---- the spool: what the receiver is about to have ------------------------------------------------ */

static int spool_grow(struct gate *g, struct direction *d, uint64_t need) {
    uint64_t capacity = d->capacity ? d->capacity : SPOOL_FIRST;
    while (capacity < need) capacity *= 2;
    if (g->stats.spooled + capacity - d->capacity > g->config.spool_total) return -1;
    if (d->fd < 0) d->fd = memfd_create("spool", MFD_CLOEXEC);
    if (d->fd < 0 || ftruncate(d->fd, (off_t)capacity)) return -1;
    void *map = d->map ? mremap(d->map, d->capacity, capacity, MREMAP_MAYMOVE)
                       : mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
    if (map == MAP_FAILED) return -1;
    g->stats.spooled += capacity - d->capacity;
    d->map = map;
    d->capacity = capacity;
    return 0;
}

/* What crossed can no longer be told whole: the tail is let go after a while, and that is said. */
static void lose_spool(struct gate *g, struct direction *d) {
    d->shed = 1;
    d->unread = MARK_SCARCE;
    g->stats.shed++;
    spool_free(g, d);
}

static void close_gaps(struct direction *d) {
    for (int again = 1; again;) {
        again = 0;
        for (int i = 0; i < d->holes; i++) {
            if (d->hole[i].from > d->contig) continue;
            if (d->hole[i].to > d->contig) d->contig = d->hole[i].to;
            d->hole[i] = d->hole[--d->holes];
            again = 1;
            break;
        }
    }
}

/* The first copy of a byte wins, as it does at a receiver that already has it. */
static void spool_put(struct gate *g, struct direction *d, int64_t offset, const uint8_t *data, uint32_t n) {
    uint64_t from = offset < (int64_t)d->contig ? d->contig : (uint64_t)offset, to = (uint64_t)(offset + n);
    if (offset + (int64_t)n <= (int64_t)d->contig || to > g->config.spool_limit + SPOOL_SLACK) return;
    if (d->shed) {
        if (from == d->contig) d->contig = to;
        return;
    }
    if (to > d->capacity && spool_grow(g, d, to)) {
        lose_spool(g, d);
        if (from == d->contig) d->contig = to;
        return;
    }
    memcpy(d->map + from, data + (from - (uint64_t)offset), to - from);
    if (from > d->contig) {
        for (int i = 0; i < d->holes; i++) {
            if (from > d->hole[i].to || to < d->hole[i].from) continue;
            if (from < d->hole[i].from) d->hole[i].from = from;
            if (to > d->hole[i].to) d->hole[i].to = to;
            return;
        }
        if (d->holes < SPANS) d->hole[d->holes++] = (struct span){from, to};
        else lose_spool(g, d);
        return;
    }
    d->contig = to;
    close_gaps(d);
}

/* Behind a gap and further than the spool reaches: at the receiver it would wait for the gap to be filled, and no look at
 * what is sent in its place later would be a look at it. */
static int out_of_reach(const struct gate *g, const struct direction *d, int64_t offset, int64_t end) {
    int64_t beyond = end - (int64_t)g->config.spool_limit - SPOOL_SLACK;
    return d->anchored && !d->shed && !d->noted_big && offset > (int64_t)d->contig && beyond > 0 && beyond <= WINDOW_MAX;
}

static int is_spooled(const struct direction *d, int64_t from, int64_t to) {
    if (to <= (int64_t)d->contig) return 1;
    for (int i = 0; i < d->holes; i++)
        if (from >= (int64_t)d->hole[i].from && to <= (int64_t)d->hole[i].to) return 1;
    return 0;
}

/* Nobody can answer for what is held and not in the spool: its sender repeats it. */
static void drop_unspooled(struct gate *g, struct direction *d) {
    struct held *before = NULL;
    for (struct held *h = d->head, *next; h; h = next) {
        next = h->next;
        int64_t from = (int32_t)(h->seq - d->base);
        if (!h->plen || is_spooled(d, from, from + h->plen)) {
            before = h;
            continue;
        }
        *(before ? &before->next : &d->head) = next;
        if (!next) d->tail = before;
        d->holding--;
        d->held_bytes -= h->plen;
        g->stats.holding--;
        decide(g, h->id, NF_DROP, 0, NULL, 0);
        give_back(g, h);
    }
}

/* The spool begins n bytes later, be they spooled or not. */
static void spool_shift(struct gate *g, struct direction *d, uint64_t n) {
    uint64_t top = d->contig;
    for (int i = 0; i < d->holes; i++) {
        struct span *s = &d->hole[i];
        if (s->to > top) top = s->to;
        s->from = s->from > n ? s->from - n : 0;
        s->to = s->to > n ? s->to - n : 0;
    }
    if (d->map && top > n) memmove(d->map, d->map + n, top - n);
    d->base += (uint32_t)n;
    d->contig = d->contig > n ? d->contig - n : 0;
    d->stream += n;
    d->expect = d->expect > n ? d->expect - n : 0;
    d->looked = d->looked > n ? d->looked - n : 0;
    d->aligned &= d->frame >= n;
    d->frame -= d->aligned ? n : 0;
    d->edge = d->edge > n ? d->edge - n : 0;
    close_gaps(d);
    d->idle = !d->contig && !d->holes;
    d->noted_big = d->frames = 0;
    if (d->idle) {
        d->shed = 0;
        d->unread = 0;
        if (d->capacity > 1u << 20) spool_free(g, d);
    }
    if (!d->shed) drop_unspooled(g, d); /* it came behind a gap while nothing was spooled, or out of the spool's reach */
}

/* Forget the first n spooled bytes: the next object starts behind them. */
static void spool_cut(struct gate *g, struct direction *d, uint64_t n) {
    if (n > d->contig) n = d->contig;
    if (n || d->contig) spool_shift(g, d, n);
}

/* The stream began n bytes before the first packet of it that came by: what is spooled lies behind a gap. */
static void spool_prepend(struct gate *g, struct direction *d, uint32_t n) {
    uint64_t top = d->contig;
    for (int i = 0; i < d->holes; i++)
        if (d->hole[i].to > top) top = d->hole[i].to;
    d->stale |= d->checking;
    d->aligned = 0;
    d->base -= n;
    if (d->expect) d->expect += n;
    if (!d->map) {
        if (d->contig) d->contig += n;
        return;
    }
    if (top + n > d->capacity && spool_grow(g, d, top + n)) {
        lose_spool(g, d);
        d->contig += n;
        return;
    }
    memmove(d->map + n, d->map, top);
    for (int i = 0; i < d->holes; i++) {
        d->hole[i].from += n;
        d->hole[i].to += n;
    }
    if (d->holes == SPANS) {
        lose_spool(g, d);
    } else if (d->contig) {
        d->hole[d->holes++] = (struct span){n, n + d->contig};
        d->contig = 0;
    }
}

/* ---- holding and releasing ------------------------------------------------------------------------ */

static int tail_held(const struct flow *f, uint32_t dir) {
    if (f->kind & (MARK_HTTP | MARK_FTPDATA | MARK_SMB)) return 1;
    return !!(f->kind & (dir == GATE_TO_SERVER ? MARK_MAIL : MARK_POP3 | MARK_IMAP)); /* a truth: fits a byte */
}

/* Past its depth the engine has no more to say about these, and their packets need not pass it. */
static int goes_deep(const struct flow *f, uint32_t dir) {
    return f->kind & MARK_FTPDATA || (dir == GATE_TO_CLIENT && f->kind & (MARK_HTTP | MARK_POP3 | MARK_IMAP));
}

/* A mail from a mailbox is neutralised, not cut, and where files travel mixed (gate_gather) one may end in the middle of
 * what is sent: as much of it as the sender sends unasked waits for its verdict. */
static int gathers(const struct flow *f, uint32_t dir) {
    int mailbox = dir == GATE_TO_CLIENT && f->kind & (MARK_POP3 | MARK_IMAP);
    int mixed = f->kind & MARK_SMB || (f->mixed && (!f->dir[dir].aligned || f->dir[dir].edge));
    return (mailbox || mixed) && f->dir[dir].holding < GATHER_MAX;
}

/* HTTP/2 frames (RFC 9113 4.1): only data of the same stream behind data of it cannot be behind the end of a file. */
static void walk_frames(struct direction *d) {
    while (d->aligned && d->map && d->frame + 9 <= d->contig) {
        const uint8_t *h = d->map + d->frame;
        uint32_t size = (uint32_t)h[0] << 16 | (uint32_t)h[1] << 8 | h[2], number = get32(h + 5) & 0x7fffffff;
        int goes_on = h[3] == 0 && !(h[4] & 0x9) && size && number == d->number; /* no END_STREAM, no padding */
        if (!goes_on) d->edge = d->frame + 9;
        if (h[3] == 0) d->number = number;
        d->frame += 9 + size;
    }
}

/* Lay the patches over a payload; whether any byte changed. */
static int lay_patches(const struct direction *d, uint32_t seq, uint8_t *payload, uint32_t n) {
    int changed = 0;
    for (int i = 0; i < d->patches; i++) {
        const struct patch *p = &d->patch[i];
        int64_t from = (int32_t)(p->seq - seq), to = from + p->length, skip = from < 0 ? -from : 0;
        if (to > n) to = n;
        if (from + skip >= to) continue;
        memcpy(payload + from + skip, p->bytes + skip, (size_t)(to - from - skip));
        changed = 1;
    }
    return changed;
}

static void let_through(struct direction *d, uint32_t end) {
    if (!d->topped || (int32_t)(end - d->top) > 0) d->top = end;
    d->topped = 1;
}

/* The mark of a packet that is let go; 0: as it came. */
static uint32_t told(const struct direction *d, uint32_t mark) {
    uint32_t more = (d->deep ? MARK_DEEP : 0) | d->unread;
    return more ? mark | more : 0;
}

static void pass_packet(struct gate *g, struct flow *f, uint32_t dir, const struct packet *p) {
    struct direction *d = &f->dir[dir];
    let_through(d, p->seq + p->plen);
    uint32_t mark = told(d, p->mark);
    if (d->patches && p->plen) {
        static uint8_t out[PACKET_MAX];
        memcpy(out, p->data, p->length);
        if (lay_patches(d, p->seq, out + p->payload, p->plen)) {
            finish_packet(out, p->l4, p->length);
            decide(g, p->id, NF_ACCEPT, mark, out, p->length);
            return;
        }
    }
    decide(g, p->id, NF_ACCEPT, mark, NULL, 0);
}

static void release_first(struct gate *g, struct flow *f, uint32_t dir) {
    struct direction *d = &f->dir[dir];
    struct held *h = pop(g, d);
    let_through(d, h->seq + h->plen);
    uint32_t mark = told(d, h->mark);
    int64_t offset = (int32_t)(h->seq - d->base);
    static uint8_t out[PACKET_MAX];
    if (d->patches && h->plen && lay_patches(d, h->seq, out + h->payload, h->plen)) {
        if (d->map && offset >= 0 && (uint64_t)offset + h->plen <= d->capacity) {
            memcpy(out, h->header, h->payload);
            memcpy(out + h->payload, d->map + offset, h->plen);
            lay_patches(d, h->seq, out + h->payload, h->plen);
            finish_packet(out, h->l4, h->payload + h->plen);
            decide(g, h->id, NF_ACCEPT, mark, out, h->payload + h->plen);
        } else { /* what is to be changed never leaves unchanged: its repetition can be */
            decide(g, h->id, NF_DROP, 0, NULL, 0);
        }
    } else {
        decide(g, h->id, NF_ACCEPT, mark, NULL, 0);
    }
    give_back(g, h);
}

static void release_all(struct gate *g, struct flow *f, uint32_t dir) {
    while (f->dir[dir].head) release_first(g, f, dir);
    f->dir[dir].checking = f->dir[dir].noted_expired = 0;
    wait_off(g, f);
}

static struct held *remember(struct gate *g, const struct packet *p) {
    struct held *h = g->pool_free;
    if (!h) return NULL;
    g->pool_free = h->next;
    memset(h, 0, offsetof(struct held, header));
    h->id = p->id, h->seq = p->seq, h->ack = p->ack, h->plen = p->plen, h->length = p->length;
    h->l4 = p->l4, h->payload = p->payload, h->flags = p->flags, h->since = g->now, h->mark = p->mark;
    memcpy(h->header, p->data, p->payload);
    uint32_t n = p->plen < 5 ? p->plen : 5;
    memcpy(h->last + 5 - n, p->data + p->length - n, n);
    g->stats.holding++;
    g->stats.held++;
    return h;
}

static void hold(struct gate *g, struct flow *f, uint32_t dir, const struct packet *p) {
    struct direction *d = &f->dir[dir];
    struct held *h = remember(g, p);
    if (!h) { /* the pool is the memory cap: what cannot be held is let through and counted */
        uint32_t before = d->unread;
        g->stats.shed++;
        d->unread = before ? before : MARK_SCARCE;
        release_all(g, f, dir);
        pass_packet(g, f, dir, p);
        d->unread = before;
        return;
    }
    if (d->tail) d->tail->next = h;
    else d->head = h;
    d->tail = h;
    d->holding++;
    d->held_bytes += h->plen;
    d->tail_since = g->now;
    wait_on(g, f);
}

/* ---- cutting -------------------------------------------------------------------------------------- */

/* The mark of a packet that no longer is what was refused, so that the last line lets it go; 0: leave it as it is. */
static uint32_t cleared(uint32_t mark) {
    return mark & MARK_REFUSE ? (mark & ~(MARK_REFUSE | 15u << MARK_WHY_SHIFT)) | MARK_SEEN : 0;
}

static void let_go(struct gate *g, const struct packet *p) { decide(g, p->id, NF_ACCEPT, cleared(p->mark), NULL, 0); }

static uint32_t rebuild(const struct held *h, uint8_t *out, uint32_t plen) {
    memcpy(out, h->header, h->payload);
    memset(out + h->payload, 0, plen);
    return h->payload + plen;
}

/* Turn the packet into a RST at its own place in the stream. Its length stays, so that an
 * encapsulation with a length of its own (PPPoE) stays right; a RST may carry bytes (RFC 9293 3.5.2). */
static void reset_with(struct gate *g, struct flow *f, const struct held *h, uint32_t seq, uint32_t verdict,
                       uint32_t mark) {
    static uint8_t out[PACKET_MAX];
    uint32_t length = rebuild(h, out, h->plen);
    put32(out + h->l4 + 4, seq);
    put32(out + h->l4 + 8, 0); /* no ACK: a client's may cover our own reply, which the engine never saw */
    out[h->l4 + 13] = RST;
    finish_packet(out, h->l4, length);
    f->state = CUT;
    f->closing = 7;
    decide(g, h->id, verdict, mark ? mark | f->kind : cleared(h->mark), out, length);
}

/* The same, with the acknowledgement: it tells where the packet's sender waits to hear of its own reset. */
static void reset_whole(struct gate *g, struct flow *f, const struct held *h, uint32_t verdict, uint32_t mark) {
    static uint8_t out[PACKET_MAX];
    uint32_t length = rebuild(h, out, h->plen);
    out[h->l4 + 13] = RST | (h->flags & ACK);
    finish_packet(out, h->l4, length);
    f->state = CUT;
    f->closing = 7;
    decide(g, h->id, verdict, mark, out, length);
}

/* Turn the packet into zeros that its receiver already has, ending at `end`. An open receiver acknowledges at
 * once (RFC 9293 3.10.7.4), a reset one answers RST (3.10.7.1): either way the answer is a packet of its own,
 * with the right addresses, encapsulation and numbers, and it passes the engine, which then knows as well. */
static void probe_with(struct gate *g, const struct held *h, uint32_t end) {
    static uint8_t out[PACKET_MAX];
    uint32_t length = rebuild(h, out, h->plen);
    put32(out + h->l4 + 4, end - h->plen);
    out[h->l4 + 13] = ACK;
    finish_packet(out, h->l4, length);
    decide(g, h->id, NF_ACCEPT, cleared(h->mark), out, length);
}

/* A cut flow: its receiver is reset first, then made to reset the sender; a receiver that stays silent
 * (a firewall drops what has no connection) leaves that to the kernel's REJECT, which MARK_CUT asks for. */
static void cut_with(struct gate *g, struct flow *f, const struct held *h) {
    if (f->resets == 0) reset_with(g, f, h, h->seq, NF_ACCEPT, 0);
    else if (f->resets < PROBES) probe_with(g, h, h->seq);
    else reset_with(g, f, h, h->seq, NF_ACCEPT, MARK_CUT);
    if (f->resets < PROBES) f->resets++;
}

static void fire_ammo(struct gate *g, struct flow *f) {
    if (!f->ammo) return;
    probe_with(g, f->ammo, f->s_ack);
    give_back(g, f->ammo);
    g->stats.holding--;
    f->ammo = NULL;
    wait_off(g, f);
}

static void done_with(struct gate *g, struct held *h) {
    give_back(g, h);
    g->stats.holding--;
}

/* Once more past the engine, if it lives: a connection it takes for open swallows the next one between the same
 * ports, unlooked at. (A download's receiver sends a reset of its own.) */
static void end_sink(struct gate *g, struct flow *f, const struct held *h) {
    /* The end of a refused connection is told to the last line too, which has the kernel forget it. */
    uint32_t mark = f->page && h->mark & MARK_REFUSE ? h->mark | MARK_CUT : 0;
    reset_with(g, f, h, f->s_ack, NF_QUEUE_NR(f->engine) | NF_VERDICT_FLAG_QUEUE_BYPASS, mark);
    f->resets = 1;
}

/* Swallow the client's newest bytes: they will be acknowledged, and the server never gets them. */
static void swallow(struct flow *f, const struct held *h) {
    if ((int32_t)(h->seq - f->c_max) > 0 || (int32_t)(h->seq + h->plen - f->c_max) <= 0) return;
    uint32_t fresh = h->seq + h->plen - f->c_max;
    uint32_t n = fresh < 5 ? fresh : 5;
    memmove(f->last, f->last + n, 5 - n);
    memcpy(f->last + 5 - n, h->last + 5 - n, n);
    f->c_max = h->seq + h->plen;
}

/* The kernel keeps what is left of a refused connection cut and forgets it soon: nothing of it is known here then, so
 * that the next one between the same ports begins afresh. */
static void end_page(struct gate *g, struct flow *f, struct held *h) {
    uint32_t refused = h->mark & MARK_REFUSE;
    end_sink(g, f, h);
    done_with(g, h);
    if (refused) destroy(g, f);
    else wait_off(g, f);
}

/* The client of a page: it may still be sending its upload, and reads the page when it likes. Its acknowledgement
 * of the whole page is kept for the server's end, should it never close its own. */
static void page_client(struct gate *g, struct flow *f, struct held *h) {
    if ((int32_t)(h->ack - (f->s_seq + f->reply_length)) >= 0) f->heard = 1;
    if (f->heard && h->flags & FIN) {
        end_page(g, f, h);
        return;
    }
    if (h->plen) {
        swallow(f, h);
        probe_with(g, h, f->s_ack);
    } else if (f->heard && !f->ammo) {
        h->since = g->now;
        f->ammo = h;
        wait_on(g, f);
        return;
    } else {
        decide(g, h->id, NF_DROP, 0, NULL, 0);
    }
    done_with(g, h);
}

/* SINK: the client's remaining DATA is swallowed (and acknowledged through the probes) until its end. */
static void sink_client(struct gate *g, struct flow *f, struct held *h) {
    if (f->replied && f->page) {
        page_client(g, f, h);
        return;
    }
    if (f->replied) {
        int heard = (int32_t)(h->ack - (f->s_seq + f->reply_length)) >= 0;
        if (!heard && h->plen) { /* it repeats itself: so does the answer to the probe */
            probe_with(g, h, f->s_ack);
        } else if (heard && (h->plen || h->flags & FIN)) {
            end_sink(g, f, h);
        } else {
            decide(g, h->id, NF_DROP, 0, NULL, 0);
        }
        done_with(g, h);
        return;
    }
    if (!h->plen) {
        if (h->flags & (FIN | RST)) f->force = 1;
        decide(g, h->id, NF_DROP, 0, NULL, 0);
        done_with(g, h);
        return;
    }
    swallow(f, h);
    if (!memcmp(f->last, "\r\n.\r\n", 5)) f->force = 1;
    fire_ammo(g, f);
    f->ammo = h;
    h->since = g->now;
    wait_on(g, f);
    if (f->force) fire_ammo(g, f);
}

static void sink_server(struct gate *g, struct flow *f, const struct packet *p) {
    static uint8_t out[PACKET_MAX];
    if (p->flags & (RST | SYN)) {
        let_go(g, p);
        f->state = CUT;
        return;
    }
    if (f->page && f->replied && p->plen && (int32_t)(p->seq - f->s_seq) > 0) { /* the rest of what is withheld */
        decide(g, p->id, NF_DROP, 0, NULL, 0);
        return;
    }
    memcpy(out, p->data, p->length);
    uint32_t length = p->length;
    put32(out + p->l4 + 8, f->c_max);
    if (f->heard) { /* only that more of its upload is taken */
        length = p->payload;
        put32(out + p->l4 + 4, f->s_seq + f->reply_length + 1);
        out[p->l4 + 13] = ACK;
    } else if (f->force && (!p->plen || f->page)) { /* what a server sends a refused client is never passed on */
        length = p->payload + f->reply_length;
        memcpy(out + p->payload, f->reply, f->reply_length);
        put32(out + p->l4 + 4, f->s_seq);
        out[p->l4 + 13] = FIN | PSH | ACK;
        f->replied = 1;
    } else if ((int32_t)(p->seq + p->plen - f->s_seq) > 0) {
        f->s_seq = p->seq + p->plen;
    }
    finish_packet(out, p->l4, length);
    decide(g, p->id, NF_ACCEPT, cleared(p->mark), out, length);
}

/* ---- refusing ------------------------------------------------------------------------------------- */

static const struct page *page_for(const struct gate *g, uint32_t why) {
    return g->pages[why].bytes ? &g->pages[why] : &g->pages[0];
}

/* The page as this flow's reply, with the time and the client's port for the help desk; HEAD gets its head only. */
static int put_page(struct flow *f, const struct page *page, int head_only) {
    static const char blank[] = GATE_REFERENCE;
    if (!page->bytes || !(f->reply = malloc(page->length))) return 0;
    memcpy(f->reply, page->bytes, page->length);
    f->reply_length = page->length;
    time_t seconds = time(NULL);
    struct tm t;
    gmtime_r(&seconds, &t);
    char reference[64];
    snprintf(reference, sizeof reference, "%02d%02d-%02d%02d%02d-%05u", (t.tm_mon + 1) % 100, t.tm_mday % 100,
             t.tm_hour % 100, t.tm_min % 100, t.tm_sec % 100, f->key.client_port);
    for (char *at = f->reply; (at = memmem(at, (size_t)(f->reply + f->reply_length - at), blank, sizeof blank - 1));)
        memcpy(at, reference, sizeof blank - 1);
    char *body = memmem(f->reply, f->reply_length, "\r\n\r\n", 4);
    if (head_only && body) f->reply_length = (uint32_t)(body + 4 - f->reply);
    f->state = SINK;
    f->page = f->force = 1;
    return 1;
}

/* A file is refused whose response has not begun to arrive: the packet that begins it becomes the page. 0: it has. */
static int page_instead(struct gate *g, struct flow *f) {
    static uint8_t out[PACKET_MAX];
    struct direction *d = &f->dir[GATE_TO_CLIENT];
    struct held *h = d->head;
    if (!(f->kind & MARK_HTTP) || f->rigid || !h || h->seq != d->base || (d->topped && (int32_t)(d->top - d->base) > 0))
        return 0;
    if (!d->map || d->contig < 16 || memcmp(d->map, "HTTP/1.", 7) || !put_page(f, &g->pages[f->known ? GATE_PAGE_KNOWN : GATE_PAGE_FILE], 0))
        return 0;
    pop(g, d);
    g->stats.holding++;
    f->replied = 1;
    f->s_seq = h->seq;
    f->s_ack = f->c_max = h->ack;
    memcpy(out, h->header, h->payload);
    memcpy(out + h->payload, f->reply, f->reply_length);
    out[h->l4 + 13] = FIN | PSH | ACK;
    finish_packet(out, h->l4, h->payload + f->reply_length);
    decide(g, h->id, NF_ACCEPT, cleared(h->mark), out, h->payload + f->reply_length);
    done_with(g, h);
    return 1;
}

static uint8_t engine_of(uint32_t mark) {
    return (uint8_t)((mark >> MARK_ENGINE_SHIFT & 15) | (mark & MARK_ENGINE_HIGH ? 16 : 0));
}

/* A policy refuses what this packet asks for. A request is swallowed and answered with a page; anything else becomes
 * the sender's reset, which the engine sees too and the last line (appliance.refusal) answers with one of its own. */
static void refuse(struct gate *g, struct flow *f, const struct packet *p) {
    struct direction *up = &f->dir[GATE_TO_SERVER], *down = &f->dir[GATE_TO_CLIENT];
    struct held *h = remember(g, p);
    if (!h) { /* the mark stays: it is withheld all the same */
        decide(g, p->id, NF_ACCEPT, 0, NULL, 0);
        return;
    }
    g->stats.cut++;
    int request = p->dir == GATE_TO_SERVER && f->kind & MARK_HTTP && p->plen && !(p->flags & (FIN | RST | SYN));
    int head_only = p->plen > 5 && !memcmp(p->data + p->payload, "HEAD ", 5);
    uint32_t first = up->head ? up->head->seq : p->seq;
    if (up->head && (int32_t)(p->seq - first) < 0) first = p->seq;
    f->c_max = first;
    for (const struct held *before = up->head; before; before = before->next) swallow(f, before);
    int answering = down->head != NULL;
    drop_held(g, up);
    drop_held(g, down);
    spool_free(g, up);
    spool_free(g, down);
    if (request && !answering && !f->rigid && put_page(f, page_for(g, p->mark >> MARK_WHY_SHIFT & 15), head_only)) {
        f->s_ack = first;
        f->s_seq = down->topped && (int32_t)(down->top - p->ack) > 0 ? down->top : p->ack;
        sink_client(g, f, h);
        return;
    }
    uint32_t engine = NF_QUEUE_NR(engine_of(p->mark)) | NF_VERDICT_FLAG_QUEUE_BYPASS;
    reset_whole(g, f, h, engine, p->mark | MARK_CUT);
    done_with(g, h);
    destroy(g, f);
}

/* ---- one packet ----------------------------------------------------------------------------------- */

static void after_cut(struct gate *g, struct flow *f, const struct packet *p) {
    const struct direction *d = &f->dir[p->dir];
    uint32_t end = p->seq + p->plen + (p->flags & FIN);
    if (f->owes_note && p->dir == f->owes_note - 1u && p->plen + (p->flags & FIN) &&
        (!d->topped || (int32_t)(end - d->top) > 0)) {
        f->owes_note = 0;
        note(g, f, p->dir, GATE_WITHHELD);
    }
    if (f->fresh_sink && p->dir == GATE_TO_SERVER && p->plen) {
        f->fresh_sink = 0;
        f->s_ack = f->c_max = p->seq;
        f->s_seq = p->ack;
    }
    if (f->state == SINK && p->dir == GATE_TO_CLIENT) {
        sink_server(g, f, p);
        return;
    }
    int bare = !p->plen && !(p->flags & FIN);
    if (p->flags & RST || (bare && f->state == CUT)) {
        let_go(g, p);
        return;
    }
    struct held *h = remember(g, p);
    if (!h) {
        decide(g, p->id, NF_DROP, 0, NULL, 0);
    } else if (f->state == SINK) {
        sink_client(g, f, h);
    } else {
        cut_with(g, f, h);
        give_back(g, h);
        g->stats.holding--;
    }
}

/* Whether the newest bytes hold the end of a chunked body (RFC 9112 7.1): at their end, or with more behind it,
 * which a server may send to have the held end pushed out. */
static int final_chunk(const struct direction *d) {
    if (!memcmp(d->map + d->contig - 5, "0\r\n\r\n", 5)) return 1;
    if (!d->tail) return 0;
    int64_t from = (int64_t)(int32_t)(d->tail->seq - d->base) - 6;
    if (from < 0) from = 0;
    return from < (int64_t)d->contig && memmem(d->map + from, d->contig - (uint64_t)from, "\r\n0\r\n\r\n", 7) != NULL;
}

/* Whether the newest bytes end a mail in its own words: the line with a dot (RFC 5321 4.1.1.4, RFC 1939 3). */
static int final_dot(const struct direction *d) {
    if (d->contig < 5) return 0;
    if (!memcmp(d->map + d->contig - 5, "\r\n.\r\n", 5)) return 1;
    int64_t from = d->tail ? (int64_t)(int32_t)(d->tail->seq - d->base) - 4 : (int64_t)d->contig;
    if (from < 0) from = 0;
    return from < (int64_t)d->contig && memmem(d->map + from, d->contig - (uint64_t)from, "\r\n.\r\n", 5) != NULL;
}

static void look(struct gate *g, struct flow *f, uint32_t dir, uint32_t why) {
    struct direction *d = &f->dir[dir];
    d->checking = 1;
    d->looked = d->contig;
    note(g, f, dir, why);
}

static void consider_notes(struct gate *g, struct flow *f, uint32_t dir, int pushed) {
    struct direction *d = &f->dir[dir];
    if (!d->deep && goes_deep(f, dir) && d->stream + d->contig >= g->config.depth) d->deep = 1;
    if (!d->noted_big && d->contig > g->config.spool_limit) {
        d->noted_big = d->checking = 1;
        note(g, f, dir, GATE_TOO_BIG);
        return;
    }
    if (d->checking || d->shed || !d->contig) return;
    int ended = all_here(d) || (d->expect && d->contig >= d->expect);
    /* What looks like an end in every packet must not buy a look at a long object each time. */
    if (!ended && d->map && (d->looked <= EAGER || d->contig >= d->looked + d->looked / 8)) {
        if (f->kind & MARK_HTTP && d->contig > 5) ended = f->mixed ? d->edge > 0 : final_chunk(d);
        if (f->kind & (MARK_MAIL | MARK_POP3)) ended = final_dot(d);
    }
    /* What ends where it says, and near enough to be waited for, need not be asked about at every push. */
    int known = d->expect && d->expect <= g->config.spool_limit && !gathers(f, dir);
    if (ended) {
        look(g, f, dir, GATE_COMPLETE);
    } else if (pushed && !known && (d->contig <= EAGER || f->kind & MARK_SMB)) {
        look(g, f, dir, GATE_PAUSE);
    } else if (d->held_bytes >= GATHER_LOOK && gathers(f, dir)) {
        look(g, f, dir, GATE_PAUSE); /* enough to answer for: the sender need not run dry */
    } else if (d->contig >= (uint64_t)FRAME_AT << d->frames * 5) {
        d->frames++;
        note(g, f, dir, GATE_FRAME);
    }
}

/* The end of a chunked body on its own (RFC 9112 7.1): what it ends has been judged already. */
static int only_trailer(const struct flow *f, const struct direction *d, const struct packet *p) {
    const uint8_t *at = p->data + p->payload;
    uint32_t n = p->plen;
    if (!(f->kind & MARK_HTTP) || !d->idle) return 0;
    if (n == 7 && !memcmp(at, "\r\n", 2)) at += 2, n -= 2;
    return n == 5 && !memcmp(at, "0\r\n\r\n", 5);
}

/* A response head on its own: nothing of the file is in it, and a server may wait for its acknowledgement. */
static int only_head(const struct flow *f, const struct direction *d, const struct packet *p) {
    const uint8_t *at = p->data + p->payload, *end = at + p->plen;
    if (!(f->kind & MARK_HTTP) || p->dir != GATE_TO_CLIENT || d->contig != p->plen || p->plen < 16) return 0;
    if (memcmp(at, "HTTP/1.", 7) || (f->asked_length > 4 && !memcmp(f->asked, "HEAD", 4))) return 0;
    /* Every line up to the blank one at the very end must look like a field: a body without a clean blank line
     * before it is no head. */
    for (int first = 1; at < end; first = 0) {
        const uint8_t *line_end = memchr(at, '\n', (size_t)(end - at));
        if (!line_end) return 0;
        uint32_t n = (uint32_t)(line_end - at);
        if (n && at[n - 1] == '\r') n--;
        if (!n) return !first && line_end + 1 == end;
        if (memchr(at, '\r', n) || memchr(at, 0, n) || (!first && !memchr(at, ':', n))) return 0;
        at = line_end + 1;
    }
    return 0;
}

static const uint8_t *find_word(const uint8_t *at, const uint8_t *end, const char *word) {
    size_t n = strlen(word);
    for (; at + n <= end; at++)
        if (!strncasecmp((const char *)at, word, n)) return at;
    return NULL;
}

/* Requests without a body in one packet: no file is in them, and every page begins with one. */
static int only_request(const struct flow *f, const struct direction *d, const struct packet *p) {
    const uint8_t *at = p->data + p->payload, *end = at + p->plen;
    if (!(f->kind & MARK_HTTP) || p->dir != GATE_TO_SERVER || !d->idle || p->plen < 16) return 0;
    if (memcmp(at, "GET /", 5) && memcmp(at, "HEAD /", 6) && memcmp(at, "OPTIONS ", 8)) return 0;
    const uint8_t *blank = memmem(at, p->plen, "\r\n\r\n", 4);
    if (!blank || blank + 4 != end) return 0;
    return !find_word(at, end, "content-length") && !find_word(at, end, "transfer-encoding") &&
           !find_word(at, end, "upgrade");
}

static int begins_request(const struct packet *p) {
    const uint8_t *at = p->data + p->payload;
    uint32_t n = 0;
    while (n < p->plen && n < 20 && at[n] >= 'A' && at[n] <= 'Z') n++;
    return n >= 3 && n < p->plen && at[n] == ' ';
}

static void begin_anew(struct gate *g, struct direction *d) {
    if (!d->joined || d->head || d->checking) return;
    spool_shift(g, d, d->contig);
    d->joined = 0;
}

/* What the client asked for, so that a file has a name and the answer to HEAD no body. */
static void note_request(struct gate *g, struct flow *f, struct direction *d, const struct packet *p) {
    const uint8_t *at = p->data + p->payload;
    if (p->dir != GATE_TO_SERVER) return;
    /* Who asks again has all of the answer before: the next one is seen from its beginning. */
    if (f->kind & (MARK_POP3 | MARK_IMAP) || (f->kind & MARK_HTTP && begins_request(p))) {
        begin_anew(g, &f->dir[GATE_TO_CLIENT]);
        begin_anew(g, d);
    }
    if (!(f->kind & MARK_HTTP) || !d->idle || !begins_request(p)) return;
    if (!f->asked) f->asked = malloc(ASKED_MAX);
    if (!f->asked) return;
    f->asked_length = p->plen < ASKED_MAX ? p->plen : ASKED_MAX;
    memcpy(f->asked, at, f->asked_length);
}

/* Whether letting this retransmission go would deliver bytes that a held packet withholds. */
static int copies_held(const struct direction *d, const struct packet *p) {
    for (const struct held *h = d->head; h; h = h->next)
        if ((int32_t)(p->seq - (h->seq + h->plen)) < 0 && (int32_t)(p->seq + p->plen - h->seq) > 0) return 1;
    return 0;
}

/* Whether this packet tells bytes differently that are known already: a sender that means two contents for one
 * place means the receiver to take the one that was not looked at. */
static int contradicts(const struct direction *d, int64_t offset, const struct packet *p) {
    if (!d->map || d->shed) return 0;
    for (int i = -1; i < d->holes; i++) {
        int64_t from = i < 0 ? 0 : (int64_t)d->hole[i].from, to = i < 0 ? (int64_t)d->contig : (int64_t)d->hole[i].to;
        if (from < offset) from = offset;
        if (to > offset + p->plen) to = offset + p->plen;
        if (from < to && memcmp(d->map + from, p->data + p->payload + (from - offset), (size_t)(to - from))) return 1;
    }
    return 0;
}

/* An acknowledgement tells what the receiver has. It tells where the stream begins when the first packet was
 * lost or late, and where it goes on when a part of it passed while the gate was bypassed. */
static void receiver_has(struct gate *g, struct flow *f, uint32_t dir, uint32_t ack) {
    struct direction *d = &f->dir[dir];
    if (!tail_held(f, dir) || d->pass) return;
    if (d->patches && d->topped && (int32_t)(ack - d->top) <= 0) forget_patches(d, &ack);
    int64_t offset = (int32_t)(ack - d->base);
    if (!d->seen) {
        d->seen = d->idle = 1;
        d->base = ack;
    } else if (offset < 0) {
        if (!d->anchored && !d->stream && offset > -65536) spool_prepend(g, d, (uint32_t)-offset);
    } else if (offset > (int64_t)d->contig + d->fin) {
        d->stale |= d->checking;
        d->joined = 1;
        spool_shift(g, d, (uint64_t)offset);
        wait_off(g, f);
    }
    d->anchored = 1;
}

static void data_packet(struct gate *g, struct flow *f, const struct packet *p) {
    int unseen = 0;
    uint32_t dir = p->dir;
    struct direction *d = &f->dir[dir];
    int tail = tail_held(f, dir);
    if (!d->seen) {
        d->seen = d->idle = 1;
        d->base = p->seq;
    }
    if (p->flags & FIN && (int32_t)(p->seq + p->plen - d->base - (uint32_t)d->contig) >= 0) { /* one further back is nobody's end */
        d->fin = 1;
        d->last = p->seq + p->plen;
    }
    uint32_t before = d->base - p->seq;
    if (tail && p->plen && !d->anchored && !d->stream && !d->pass && before && before < 65536) spool_prepend(g, d, before);
    int64_t offset = (int32_t)(p->seq - d->base), end = offset + p->plen;
    if (d->pass) {
        if (d->expect && !f->mixed && end > (int64_t)d->expect) { /* mixed: a place near an end, not where one begins */
            d->stream += d->contig;
            d->contig = 0;
            d->base = p->seq;
            d->expect = d->pass = d->shed = 0;
            d->unread = 0;
            d->idle = 1;
            offset = 0, end = p->plen;
        } else {
            if (end > (int64_t)d->contig) d->contig = (uint64_t)end;
            pass_packet(g, f, dir, p);
            return;
        }
    }
    if (p->plen) note_request(g, f, d, p);
    offset = (int32_t)(p->seq - d->base), end = offset + p->plen;
    int fresh = end > (int64_t)d->contig; /* a FIN that only repeats what is held must not push it out */
    if (tail && p->plen) {
        if (d->idle && !offset && !f->mixed && (only_trailer(f, d, p) || only_request(f, d, p))) { /* elsewhere it moves no place */
            d->base = p->seq + p->plen;
            d->stream += p->plen;
            pass_packet(g, f, dir, p);
            return;
        }
        int beyond = !d->topped || (int32_t)(p->seq + p->plen - d->top) > 0; /* seen, but never let through */
        if (contradicts(d, offset, p) && (fresh || p->plen > 1)) { /* one byte: an old keepalive, harmless */
            decide(g, p->id, NF_DROP, 0, NULL, 0);
            return;
        }
        if (!fresh && !(p->flags & FIN)) {
            if (copies_held(d, p)) decide(g, p->id, NF_DROP, 0, NULL, 0);
            else if (beyond) hold(g, f, dir, p);
            else pass_packet(g, f, dir, p);
            return;
        }
        /* Sent again it will come in order, or nearer to it. */
        if ((offset > (int64_t)d->contig && d->holes == SPANS) || out_of_reach(g, d, offset, end)) {
            decide(g, p->id, NF_DROP, 0, NULL, 0);
            return;
        }
        d->idle = 0;
        if (offset > -65536) spool_put(g, d, offset, p->data + p->payload, p->plen);
        walk_frames(d);
        if (!d->checking && !d->head && !(p->flags & FIN) && only_head(f, d, p)) {
            pass_packet(g, f, dir, p);
            return;
        }
    }
    if (d->checking) {
        hold(g, f, dir, p);
    } else if (tail && !(d->idle && p->flags & FIN)) {
        int more = d->head && d->held_bytes - d->head->plen + p->plen >= TAIL_MIN;
        if (fresh && !gathers(f, dir)) {
            /* Nothing of an object leaves before a first look: it may be over already, and what follows be there to
             * push it out. After that look its end is known. */
            unseen = more && !d->looked && d->map && f->kind & (MARK_HTTP | MARK_MAIL);
            while (!unseen && d->head && d->held_bytes - d->head->plen + p->plen >= TAIL_MIN) release_first(g, f, dir);
        }
        hold(g, f, dir, p);
    } else {
        pass_packet(g, f, dir, p);
        return;
    }
    if (tail) consider_notes(g, f, dir, p->flags & PSH || unseen);
}

/* The same ports again after the flow ended, although the beginning was not seen here: unrelated sequence numbers. */
static int is_another(const struct flow *f, const struct packet *p) {
    const struct direction *d = &f->dir[p->dir];
    int64_t offset = (int32_t)(p->seq - d->base);
    if (p->mark & MARK_DEEP) return 0; /* the kernel knows this connection: what it sends from afar is no beginning */
    return f->closing && d->seen && (offset < -(16 << 20) || offset > (int64_t)d->contig + (16 << 20));
}

/* Both ends agree on a new connection: one asked for it, the other acknowledges just that (RFC 9293 3.5). Neither can
 * have the gate forget what it knows by itself, and sequence numbers tell nothing: a sender that takes ports again within
 * a minute begins 64 KiB behind. */
static int begins_again(struct flow *f, const struct packet *p) {
    if (!(p->flags & SYN) || p->flags & RST) return 0;
    if (p->flags & ACK) return f->opening == 2 - p->dir && p->ack == f->opened;
    f->opening = (uint8_t)(p->dir + 1);
    f->opened = p->seq + 1;
    return 0;
}

static int unfinished(const struct flow *f, uint32_t dir) {
    const struct direction *d = &f->dir[dir];
    return tail_held(f, dir) && (d->head || (d->map && !d->idle));
}

/* Whether the first line, which is over with these bytes, is an HTTP request's (RFC 9112 3, RFC 9113 3.4; empty lines
 * before it are nothing). The engine says so as well; but one that took a reset for real, as the server did not, is deaf. */
static int asks_http(struct beginning *b, const uint8_t *at, uint32_t n) {
    enum { LAST = sizeof b->line };
    for (; n && !b->read; at++, n--) {
        if (*at == '\n' && b->written) {
            uint8_t last[LAST];
            for (uint32_t i = 0; i < LAST; i++) last[i] = b->line[(b->written + i) % LAST];
            b->read = 1;
            return b->http = find_word(last, last + LAST, "HTTP/") != NULL;
        }
        if (*at == '\r' || *at == '\n') continue;
        b->line[b->written % LAST] = *at;
        if (++b->written == 0) b->written = LAST;
    }
    return 0;
}

/* A packet of a connection of which the engine does not know yet what it is (docs/decisions/0012). What lies behind a
 * gap is not let through: the engine may recognise the stream by what fills the gap, and the file in it would have
 * arrived unseen. Its sender repeats it. What is in order passes; UNKNOWN_MAX of it, or a packet that the engine was not
 * asked about, ends this (the mark stays on, which has the kernel ask no more). */
static void while_unknown(struct gate *g, const struct packet *p) {
    uint32_t end = p->seq + p->plen + (p->flags & FIN);
    if (p->dir == GATE_TO_CLIENT) {
        int opens = (p->flags & (SYN | ACK | RST | FIN)) == (SYN | ACK);
        /* The receiver says where the stream begins. What was known between these ports the kernel has forgotten. */
        int turn;
        struct flow *former = opens && remember_beginning(g, &p->key, p->ack) ? lookup_either(g, &p->key, &turn) : NULL;
        if (former) destroy(g, former);
        decide(g, p->id, NF_ACCEPT, opens ? p->mark | MARK_WATCHED : 0, NULL, 0);
        return;
    }
    struct beginning *b = beginning_of(g, &p->key);
    if (!b) {
        if (g->beginning_at > g->beginning_count) g->stats.shed++;
        decide(g, p->id, NF_ACCEPT, 0, NULL, 0);
        return;
    }
    if (p->flags & (SYN | RST)) {
        decide(g, p->id, NF_ACCEPT, p->mark & ~MARK_WATCHED, NULL, 0);
        return;
    }
    if (!b->http && ((int32_t)(p->seq - b->next) > 0 || !(p->flags & ACK))) {
        decide(g, p->id, NF_DROP, 0, NULL, 0);
        return;
    }
    uint32_t had = b->next - p->seq;
    if (b->http || (had < p->plen && p->mark & MARK_SEEN && asks_http(b, p->data + p->payload + had, p->plen - had))) {
        /* Past the rules once more, as if the engine had said it: they remember it, and bring the packet back. */
        decide(g, p->id, NF_REPEAT, (p->mark & ~MARK_WATCHED) | MARK_HTTP, NULL, 0);
        return;
    }
    if ((int32_t)(end - b->next) > 0) b->next = end;
    int over = b->next - b->first >= UNKNOWN_MAX || !(p->mark & MARK_SEEN);
    if (over) forget_beginning(g, b);
    decide(g, p->id, NF_ACCEPT, over ? 0 : p->mark & ~MARK_WATCHED, NULL, 0);
}

/* Whether the client has sent, while the flow was unknown, something behind this packet, the first that is known: bytes
 * that the engine did not take were counted as in order, and what came behind them may be a file. */
static int sent_beyond(struct gate *g, const struct packet *p) {
    struct beginning *b = beginning_of(g, &p->key);
    if (!b) return 0;
    int beyond = (int32_t)(b->next - (p->seq + p->plen)) > 0;
    forget_beginning(g, b);
    return beyond;
}

/* Whether this packet can hold the end of a file. */
static int carries(const struct flow *f, const struct packet *p) {
    return tail_held(f, p->dir) && (p->plen || p->flags & FIN);
}

/* The engine knows the file that this packet completes by its hash. It is held with what waits of it, until the daemon
 * has cut the flow; what cannot be held (the flow passes, or it repeats) keeps its mark, and the last line withholds it.
 * After a change of protocol the engine reads what came before with the next packet, be it an acknowledgement: that one
 * is about what waits the other way. */
static void known_file(struct gate *g, struct flow *f, const struct packet *p) {
    uint32_t dir = carries(f, p) ? p->dir : !p->dir;
    f->known = 1;
    f->dir[dir].checking = 1;
    if (dir == p->dir) data_packet(g, f, p);
    else let_go(g, p);
    note(g, f, dir, GATE_KNOWN);
}

static void handle(struct gate *g, struct packet *p) {
    g->stats.packets++;
    int unread = parse(p);
    if (unread) {
        decide(g, p->id, unread == UNREADABLE && p->mark & MARK_FILES ? NF_DROP : NF_ACCEPT, 0, NULL, 0);
        return;
    }
    if (!g->dry && !sum_holds(p)) { /* what tests feed has none */
        decide(g, p->id, NF_DROP, 0, NULL, 0);
        return;
    }
    if (!(p->mark & (MARK_FILES | MARK_REFUSE))) {
        while_unknown(g, p);
        return;
    }
    if (p->flags & URG && p->plen) { /* receivers disagree on which bytes are content (RFC 6093); no file needs it */
        decide(g, p->id, NF_DROP, 0, NULL, 0);
        return;
    }
    int turn;
    struct flow *f = lookup_either(g, &p->key, &turn);
    if (turn) {
        p->dir = !p->dir;
        p->key = f->key;
    }
    if (f && (begins_again(f, p) || is_another(f, p))) {
        destroy(g, f);
        f = NULL;
    }
    if (!f) f = create(g, &p->key, p->mark & MARK_FILES);
    if (!f) {
        decide(g, p->id, NF_ACCEPT, p->mark | MARK_SCARCE, NULL, 0);
        return;
    }
    f->touched = g->now;
    f->kind |= p->mark & MARK_FILES;
    f->rigid |= (p->mark & MARK_PPPOE) != 0;
    if (p->dir == GATE_TO_SERVER) f->engine = engine_of(p->mark);
    if (!f->begun && p->plen && p->dir == GATE_TO_SERVER) {
        f->begun = 1;
        if (sent_beyond(g, p) && f->state == OPEN) {
            drop_all(g, f); /* the server may have spoken first */
            f->state = CUT;
            g->stats.cut++;
        }
    }
    if (f->state != OPEN) {
        after_cut(g, f, p);
        return;
    }
    if (p->mark & MARK_REFUSE && !(p->flags & RST)) {
        int known = (p->mark >> MARK_WHY_SHIFT & 15) == GATE_PAGE_KNOWN && f->kind & MARK_FILES;
        if (known && (carries(f, p) || (!f->known && f->dir[!p->dir].head))) known_file(g, f, p);
        else if (f->known) let_go(g, p); /* an acknowledgement of what came before: the daemon's cut follows */
        else refuse(g, f, p);
        return;
    }
    if (p->flags & RST) {
        let_go(g, p);
        /* A sender's own RST proves nothing about an unfinished object: its receiver may never see or heed it, so
         * what is held waits for its verdict and what is known is kept. */
        f->closing = unfinished(f, p->dir) ? f->closing | 8 : 1;
        /* A download that breaks off may go on in another connection: what came so far is looked at and kept. */
        struct direction *d = &f->dir[GATE_TO_CLIENT];
        if (f->kind & MARK_HTTP && d->map && !d->idle && !d->checking && !d->shed && d->contig > d->looked) {
            d->fin = 1;
            d->last = d->base + (uint32_t)d->contig;
            look(g, f, GATE_TO_CLIENT, GATE_COMPLETE);
        }
        return;
    }
    if (!f->met && p->plen) {
        f->met = 1;
        f->dir[p->dir].joined = f->kind & MARK_HTTP && (p->dir == GATE_TO_CLIENT || !begins_request(p));
    }
    if (p->flags & ACK) receiver_has(g, f, !p->dir, p->ack);
    if (p->plen || p->flags & FIN) {
        data_packet(g, f, p);
        if (p->flags & FIN) f->closing |= p->dir == GATE_TO_CLIENT ? 2 : 4;
    } else {
        decide(g, p->id, NF_ACCEPT, 0, NULL, 0);
    }
}

/* ---- time ----------------------------------------------------------------------------------------- */

static int64_t pause_after(const struct gate *g, const struct flow *f, uint32_t dir) {
    const struct direction *d = &f->dir[dir];
    if (d->shed) return SHED_PAUSE_US;
    if (gathers(f, dir)) return g->config.pause_us; /* most of these looks are at what is new only (mailbox.may_pass) */
    /* Looking costs about 5 us per kilobyte: wait three times that, so that looking stays a fraction. */
    int64_t wait = (int64_t)(d->contig / 1024 * 15);
    if (wait < g->config.pause_us) wait = g->config.pause_us;
    return wait > PAUSE_MAX_US ? PAUSE_MAX_US : wait;
}

static int64_t tick(struct gate *g) {
    int64_t next = 1000000;
    for (uint32_t i = 0; i < g->waiting_count; i++) {
        struct flow *f = &g->flows[g->waiting[i]];
        if (f->ammo) {
            if (f->heard && g->now - f->ammo->since >= LINGER_US) {
                struct held *last = f->ammo;
                f->ammo = NULL;
                end_page(g, f, last);
                i--;
            } else if (!f->heard && g->now - f->ammo->since >= SINK_IDLE_US) {
                f->force = 1;
                fire_ammo(g, f);
            } else {
                next = next < 50000 ? next : 50000;
            }
            continue;
        }
        for (uint32_t dir = 0; dir < 2 && g->note_count < NOTES - 4; dir++) {
            struct direction *d = &f->dir[dir];
            if (!d->head) continue;
            int64_t age = g->now - d->head->since;
            if (age >= (int64_t)g->config.deadline_ms * 1000 && !d->noted_expired) {
                d->noted_expired = 1;
                note(g, f, dir, GATE_EXPIRED);
            }
            if (d->checking) {
                next = next < 50000 ? next : 50000;
                continue;
            }
            int64_t left = d->tail_since + pause_after(g, f, dir) - g->now;
            if (left > 0) {
                next = left < next ? left : next;
            } else if (d->shed) {
                note(g, f, dir, GATE_SHED);
                release_all(g, f, dir);
                i = i ? i - 1 : 0;
            } else {
                look(g, f, dir, GATE_PAUSE);
            }
        }
    }
    if (g->now - g->swept > 1000000) {
        g->swept = g->now;
        for (uint32_t n = 0; n < g->high_water && g->note_count < NOTES - 4; n++) {
            struct flow *f = &g->flows[n];
            if (!f->used || f->waiting) continue;
            int64_t idle = g->now - f->touched;
            int over = f->closing == 1 || f->closing == 6 || f->closing == 7;
            /* A pause must not make the gate forget the first part of a file, unless memory is short. */
            int keep = unfinished(f, 0) || unfinished(f, 1);
            keep &= g->stats.spooled * 2 < g->config.spool_total && g->stats.flows * 2 < g->config.max_flows;
            if (idle > (keep ? UNFINISHED_IDLE_US : FLOW_IDLE_US) || (over && idle > 2000000)) {
                destroy(g, f);
                continue;
            }
            for (int dir = 0; idle > SPOOL_IDLE_US && dir < 2; dir++)
                if (f->dir[dir].map && f->dir[dir].idle && !f->dir[dir].checking) spool_free(g, &f->dir[dir]);
        }
    }
    return next;
}

/* ---- the queue ------------------------------------------------------------------------------------ */

static int receive(struct gate *g) {
    int n = recvmmsg(g->fd, g->messages, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno == ENOBUFS) g->stats.overruns++;
        n = 0;
    }
    g->staged = n;
    return n;
}

static int each_attr(const struct nlattr *attr, void *data) {
    const struct nlattr **table = data;
    if (mnl_attr_type_valid(attr, NFQA_MAX) >= 0) table[mnl_attr_get_type(attr)] = attr;
    return MNL_CB_OK;
}

static void process(struct gate *g) {
    g->now = clock_us();
    for (int i = 0; i < g->staged; i++) {
        const struct nlmsghdr *nlh = g->vectors[i].iov_base;
        if (!mnl_nlmsg_ok(nlh, (int)g->messages[i].msg_len) || nlh->nlmsg_type < NLMSG_MIN_TYPE) continue;
        const struct nlattr *attr[NFQA_MAX + 1] = {0};
        if (mnl_attr_parse(nlh, sizeof(struct nfgenmsg), each_attr, attr) < 0 || !attr[NFQA_PACKET_HDR]) continue;
        const struct nfqnl_msg_packet_hdr *ph = mnl_attr_get_payload(attr[NFQA_PACKET_HDR]);
        struct packet p = {.id = ntohl(ph->packet_id)};
        if (attr[NFQA_MARK]) p.mark = ntohl(mnl_attr_get_u32(attr[NFQA_MARK]));
        if (attr[NFQA_PAYLOAD]) {
            p.data = mnl_attr_get_payload(attr[NFQA_PAYLOAD]);
            p.length = mnl_attr_get_payload_len(attr[NFQA_PAYLOAD]);
        }
        handle(g, &p);
    }
    g->staged = 0;
    flush(g);
}

static int hand_over(struct gate *g, struct gate_note *notes, int max_notes) {
    int n = g->note_count < max_notes ? g->note_count : max_notes;
    memcpy(notes, g->notes, (size_t)n * sizeof *notes);
    memmove(g->notes, g->notes + n, (size_t)(g->note_count - n) * sizeof *notes);
    g->note_count -= n;
    return n;
}

int gate_run(struct gate *g, const int *fds, int nfds, uint32_t *ready, struct gate_note *notes, int max_notes,
             int64_t timeout_us) {
    struct pollfd polls[33];
    int64_t deadline = clock_us() + timeout_us;
    *ready = 0;
    flush(g); /* what release and cut decided since the last call */
    for (int i = 0; i < nfds && i < 32; i++) polls[i + 1] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    polls[0] = (struct pollfd){.fd = g->fd, .events = POLLIN};
    if (g->staged) process(g);
    for (;;) {
        g->now = clock_us();
        int64_t next = tick(g);
        flush(g);
        if (g->note_count) return hand_over(g, notes, max_notes);
        int64_t left = deadline - g->now;
        if (left <= 0) return 0;
        if (next < left) left = next;
        struct timespec wait = {left / 1000000, left % 1000000 * 1000};
        if (ppoll(polls, (nfds_t)nfds + 1, &wait, NULL) < 0) return 0;
        if (polls[0].revents && receive(g)) {
            /* The engine speaks before it lets a packet go: hear it first, then judge the packet. */
            poll(polls + 1, (nfds_t)nfds, 0);
        }
        for (int i = 0; i < nfds; i++)
            if (polls[i + 1].revents) *ready |= 1u << i;
        if (*ready) return 0;
        if (g->staged) process(g);
    }
}

/* ---- answers -------------------------------------------------------------------------------------- */

static uint64_t handle_of(struct gate *g, struct flow *f) {
    return (uint64_t)f->generation << 32 | (uint32_t)(f - g->flows + 1);
}

uint64_t gate_find(struct gate *g, const struct gate_key *key, uint32_t kind, uint32_t *dir) {
    int turn;
    struct flow *f = lookup_either(g, key, &turn);
    *dir = turn ? GATE_TO_CLIENT : GATE_TO_SERVER;
    set_now(g);
    if (f && kind && f->state == CUT && g->now - f->touched > CUT_QUIET_US) { /* another one on the same ports */
        destroy(g, f);
        f = NULL;
    }
    if (!f && kind) {
        int sender_is_server = kind != MARK_MAIL && key->client_port < key->server_port;
        struct gate_key other = turned(key);
        f = create(g, sender_is_server ? &other : key, kind);
        *dir = sender_is_server ? GATE_TO_CLIENT : GATE_TO_SERVER;
    }
    return f ? handle_of(g, f) : 0;
}

int gate_key_of(struct gate *g, uint64_t flow, struct gate_key *key, uint32_t *kind) {
    struct flow *f = by_handle(g, flow);
    if (!f) return -1;
    *key = f->key;
    *kind = f->kind;
    return 0;
}

void gate_release(struct gate *g, uint64_t flow, uint32_t dir, uint64_t upto, uint64_t finished) {
    struct flow *f = by_handle(g, flow);
    if (!f || dir > 1 || f->state != OPEN) return;
    struct direction *d = &f->dir[dir];
    d->checking = 0;
    if (d->stale) upto = finished = d->stale = 0; /* said about a spool that began elsewhere: it is looked at again */
    /* What lies behind a gap cannot be delivered before the gap is filled, and that is held in its turn. */
    for (const struct held *h; (h = d->head);) {
        int64_t from = (int32_t)(h->seq - d->base);
        if (from + h->plen > (int64_t)upto && from <= (int64_t)d->contig) break;
        release_first(g, f, dir);
    }
    d->noted_expired = 0;
    if (d->expect && d->expect <= upto) d->expect = 0;
    if (d->edge <= upto) d->edge = 0;
    if (finished) spool_cut(g, d, finished);
    wait_off(g, f);
    if (finished && f->mixed && !d->aligned) { /* what is finished ends with a frame */
        d->aligned = 1;
        d->frame = d->number = 0;
        walk_frames(d);
        if (d->edge + finished <= upto) d->edge = 0;
    }
    set_now(g);
    if (!d->shed) d->tail_since = g->now; /* what is not spooled goes after a while, whatever is said of it */
    if (d->head && d->contig > d->looked) consider_notes(g, f, dir, d->tail->flags & PSH);
    /* The end came during the look, on its own: what was looked at is whole, and nobody would say so. */
    else if (d->contig && !d->idle && !d->end_said && all_here(d) && tail_held(f, dir) && !d->pass && !d->shed)
        look(g, f, dir, GATE_COMPLETE);
}

void gate_expect(struct gate *g, uint64_t flow, uint32_t dir, uint64_t end) {
    struct flow *f = by_handle(g, flow);
    if (!f || dir > 1) return;
    struct direction *d = &f->dir[dir];
    d->expect = end > d->stream ? end - d->stream : 0;
    if (d->head) consider_notes(g, f, dir, 0);
}

void gate_gather(struct gate *g, uint64_t flow) {
    struct flow *f = by_handle(g, flow);
    if (f) f->mixed = 1;
}

void gate_pass(struct gate *g, uint64_t flow, uint32_t dir, int sealed) {
    struct flow *f = by_handle(g, flow);
    if (!f || dir > 1 || f->state != OPEN) return;
    struct direction *d = &f->dir[dir];
    d->pass = tail_held(f, dir);
    d->unread = sealed ? MARK_BYPASS : MARK_LARGE;
    release_all(g, f, dir); /* with what was to be changed in it */
    spool_free(g, d);
    d->shed = 1;
}

int64_t gate_cut(struct gate *g, uint64_t flow, uint32_t dir, const char *reply, uint32_t reply_length) {
    struct flow *f = by_handle(g, flow);
    if (!f || dir > 1 || f->state != OPEN) return 0;
    struct direction *d = &f->dir[dir];
    int64_t withheld = 0;
    for (struct held *h = d->head; h; h = h->next) withheld += h->plen + (h->flags & FIN);
    int sink = reply && f->kind & MARK_MAIL && dir == GATE_TO_SERVER && reply_length <= REPLY_MAX && !f->rigid;
    if (!withheld) f->owes_note = (uint8_t)(dir + 1);
    set_now(g);
    d->checking = 0;
    drop_held(g, &f->dir[!dir]);
    if (sink) {
        f->reply = malloc(reply_length);
        if (!f->reply) sink = 0;
    }
    if (sink) {
        memcpy(f->reply, reply, reply_length);
        f->reply_length = reply_length;
        f->state = SINK;
        f->fresh_sink = !d->head;
        if (d->head) {
            f->s_ack = f->c_max = d->head->seq;
            f->s_seq = d->head->ack;
        }
        g->stats.cut++;
        for (struct held *h; (h = pop(g, d));) {
            g->stats.holding++;
            if ((int32_t)(h->ack - f->s_seq) > 0) f->s_seq = h->ack;
            sink_client(g, f, h);
        }
        drop_all(g, f); /* of its bytes nothing is left to look at; it waits only with ammunition */
        return withheld;
    }
    g->stats.cut++;
    if (dir == GATE_TO_CLIENT && page_instead(g, f)) {
        drop_all(g, f);
        return withheld;
    }
    f->state = CUT;
    for (struct held *h; (h = pop(g, d));) {
        if (f->resets < 2) cut_with(g, f, h);
        else decide(g, h->id, NF_DROP, 0, NULL, 0);
        give_back(g, h);
    }
    drop_all(g, f);
    return withheld;
}

int gate_rewrite(struct gate *g, uint64_t flow, uint32_t dir, uint64_t offset, const uint8_t *bytes, uint32_t length) {
    struct flow *f = by_handle(g, flow);
    if (!f || dir > 1 || f->state != OPEN) return -1;
    struct direction *d = &f->dir[dir];
    if (!length || offset + length > d->contig || d->stale) return -1;
    uint32_t seq = d->base + (uint32_t)offset;
    if (d->topped && (int32_t)(seq - d->top) < 0) return -1;
    if (!d->patch) d->patch = calloc(PATCHES, sizeof *d->patch);
    uint8_t *copy = malloc(length);
    if (!d->patch || d->patches == PATCHES || !copy) {
        free(copy);
        return -1;
    }
    memcpy(copy, bytes, length);
    d->patch[d->patches++] = (struct patch){seq, length, copy};
    return 0;
}

uint64_t gate_delivered(struct gate *g, uint64_t flow, uint32_t dir) {
    struct flow *f = by_handle(g, flow);
    if (!f || dir > 1 || !f->dir[dir].topped) return 0;
    int32_t offset = (int32_t)(f->dir[dir].top - f->dir[dir].base);
    return offset > 0 ? (uint64_t)offset : 0;
}

uint32_t gate_asked(struct gate *g, uint64_t flow, char *into, uint32_t room) {
    struct flow *f = by_handle(g, flow);
    if (!f || !f->asked) return 0;
    uint32_t n = f->asked_length < room ? f->asked_length : room;
    memcpy(into, f->asked, n);
    return n;
}

int gate_spool(struct gate *g, uint64_t flow, uint32_t dir, uint64_t *length) {
    struct flow *f = by_handle(g, flow);
    *length = 0;
    if (!f || dir > 1 || !f->dir[dir].map) return -1;
    *length = f->dir[dir].contig;
    return f->dir[dir].fd;
}

int gate_set_page(struct gate *g, uint32_t why, const char *bytes, uint32_t length) {
    if (why >= GATE_PAGES || length > GATE_PAGE_MAX) return -1;
    char *copy = length ? malloc(length) : NULL;
    if (length && !copy) return -1;
    if (copy) memcpy(copy, bytes, length);
    free(g->pages[why].bytes);
    g->pages[why] = (struct page){copy, length};
    return 0;
}

void gate_get_stats(struct gate *g, struct gate_stats *stats) { *stats = g->stats; }

/* ---- opening -------------------------------------------------------------------------------------- */

struct gate *gate_open_dry(const struct gate_config *config) {
    struct gate *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->config = *config;
    g->dry = 1;
    g->fd = -1;
    uint32_t slots = 1024;
    while (slots < config->max_flows) slots *= 2;
    g->hash_mask = slots - 1;
    g->hash = calloc(slots, sizeof *g->hash);
    g->flows = calloc(config->max_flows, sizeof *g->flows);
    g->waiting = calloc(config->max_flows, sizeof *g->waiting);
    g->pool = calloc(config->max_held, sizeof *g->pool);
    g->beginning_count = config->max_flows * 2;
    g->beginnings = calloc(g->beginning_count, sizeof *g->beginnings);
    g->beginning_hash = calloc(slots, sizeof *g->beginning_hash);
    if (!g->beginnings || !g->beginning_hash || !g->hash || !g->flows || !g->waiting || !g->pool) {
        gate_close(g);
        return NULL;
    }
    for (uint32_t i = 0; i < config->max_held; i++) give_back(g, &g->pool[i]);
    return g;
}

static int prepare(struct gate *g) {
    g->buffers = mmap(NULL, (size_t)BATCH * PACKET_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->buffers == MAP_FAILED) {
        g->buffers = NULL;
        return -1;
    }
    for (int i = 0; i < BATCH; i++) {
        g->vectors[i] = (struct iovec){g->buffers + (size_t)i * PACKET_MAX, PACKET_MAX};
        g->messages[i].msg_hdr = (struct msghdr){.msg_iov = &g->vectors[i], .msg_iovlen = 1};
    }
    return 0;
}

static int configure(struct gate *g, uint32_t type, uint32_t value) {
    char buffer[512];
    struct nlmsghdr *nlh = nfq_nlmsg_put(buffer, NFQNL_MSG_CONFIG, g->config.queue);
    switch (type) {
    case NFQA_CFG_CMD:
        nfq_nlmsg_cfg_put_cmd(nlh, AF_INET, (uint8_t)value);
        break;
    case NFQA_CFG_PARAMS:
        nfq_nlmsg_cfg_put_params(nlh, NFQNL_COPY_PACKET, 0xffff);
        break;
    case NFQA_CFG_QUEUE_MAXLEN:
        nfq_nlmsg_cfg_put_qmaxlen(nlh, value);
        break;
    default:
        mnl_attr_put_u32(nlh, NFQA_CFG_FLAGS, htonl(value));
        mnl_attr_put_u32(nlh, NFQA_CFG_MASK, htonl(value));
    }
    nlh->nlmsg_flags |= NLM_F_ACK;
    if (mnl_socket_sendto(g->nl, nlh, nlh->nlmsg_len) < 0) return -1;
    ssize_t n = recv(g->fd, buffer, sizeof buffer, 0);
    const struct nlmsghdr *answer = (const struct nlmsghdr *)buffer;
    if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || answer->nlmsg_type != NLMSG_ERROR) return 0;
    errno = -((const struct nlmsgerr *)NLMSG_DATA(answer))->error;
    return errno ? -1 : 0;
}

struct gate *gate_open(const struct gate_config *config, int *error) {
    struct gate *g = gate_open_dry(config);
    if (!g) {
        *error = ENOMEM;
        return NULL;
    }
    g->dry = 0;
    g->nl = mnl_socket_open(NETLINK_NETFILTER);
    if (!g->nl || mnl_socket_bind(g->nl, 0, MNL_SOCKET_AUTOPID) < 0) goto failed;
    g->fd = mnl_socket_get_fd(g->nl);
    int on = 1, room = 32 << 20;
    setsockopt(g->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(g->fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on);
    if (prepare(g)) goto failed;
    if (configure(g, NFQA_CFG_QUEUE_MAXLEN, 16384) && errno != ENODEV) goto failed;
    if (configure(g, NFQA_CFG_CMD, NFQNL_CFG_CMD_BIND) || configure(g, NFQA_CFG_PARAMS, 0) ||
        configure(g, NFQA_CFG_QUEUE_MAXLEN, 16384))
        goto failed;
    if (config->fail_open && configure(g, NFQA_CFG_FLAGS, NFQA_CFG_F_FAIL_OPEN)) goto failed;
    return g;
failed:
    *error = errno;
    gate_close(g);
    return NULL;
}

static void dispose(struct gate *g) {
    if (g->nl) mnl_socket_close(g->nl);
    if (g->buffers) munmap(g->buffers, (size_t)BATCH * PACKET_MAX);
    free(g->beginnings);
    free(g->beginning_hash);
    free(g->hash);
    free(g->flows);
    free(g->waiting);
    free(g->pool);
    free(g->verdicts);
    for (int i = 0; i < GATE_PAGES; i++) free(g->pages[i].bytes);
    free(g);
}

void gate_close(struct gate *g) {
    if (!g) return;
    if (g->flows)
        for (uint32_t i = 0; i < g->high_water; i++)
            if (g->flows[i].used) {
                for (uint32_t dir = 0; dir < 2; dir++) /* a planned stop withholds nothing */
                    if (g->flows[i].state == OPEN) release_all(g, &g->flows[i], dir);
                destroy(g, &g->flows[i]);
                g->note_count = 0;
            }
    flush(g);
    dispose(g);
}

/* ---- handing over --------------------------------------------------------------------------------- */

struct image { /* what an image begins with; then the arrays as they are, then each used flow's own */
    uint32_t format, flow_size, held_size, beginning_size, max_flows, max_held;
    uint32_t high_water, free_head, waiting_count, beginning_at, hash_mask;
    int32_t note_count;
    const struct held *pool, *pool_free; /* where they were: what points into the pool is moved with it */
    int64_t swept;
    struct gate_stats stats;
    struct gate_note notes[NOTES];
};

struct own { /* what a flow has outside of the arrays; -1: nothing */
    int32_t reply, asked, patches[2], spool[2];
};

static int put(int fd, const void *data, size_t n) {
    for (const char *at = data; n;) {
        ssize_t wrote = write(fd, at, n);
        if (wrote <= 0) return -1;
        at += wrote, n -= (size_t)wrote;
    }
    return 0;
}

static int get(int fd, void *data, size_t n) {
    for (char *at = data; n;) {
        ssize_t there = read(fd, at, n);
        if (there <= 0) return -1;
        at += there, n -= (size_t)there;
    }
    return 0;
}

/* What `n` bytes of the image say, or NULL. */
static void *get_new(int fd, size_t n) {
    void *made = n ? malloc(n) : NULL;
    if (made && get(fd, made, n)) {
        free(made);
        made = NULL;
    }
    return made;
}

uint32_t gate_format(void) { return FORMAT; }

int gate_queue_fd(struct gate *g) { return g->fd; }

static int put_own(const struct flow *f, int image, int *fds, uint32_t room, uint32_t *count) {
    struct own own = {.reply = f->reply ? (int32_t)f->reply_length : -1, .asked = f->asked ? (int32_t)f->asked_length : -1};
    for (int i = 0; i < 2; i++) {
        const struct direction *d = &f->dir[i];
        own.patches[i] = d->patches;
        own.spool[i] = d->map ? (int32_t)*count : -1;
        if (!d->map) continue;
        if (*count == room) return -1;
        fds[(*count)++] = d->fd;
    }
    if (put(image, &own, sizeof own)) return -1;
    if (f->reply && put(image, f->reply, f->reply_length)) return -1;
    if (f->asked && put(image, f->asked, f->asked_length)) return -1;
    for (int i = 0; i < 2; i++)
        for (int n = 0; n < f->dir[i].patches; n++) {
            const struct patch *p = &f->dir[i].patch[n];
            if (put(image, p, sizeof *p) || put(image, p->bytes, p->length)) return -1;
        }
    return 0;
}

int gate_freeze(struct gate *g, int image, int *fds, uint32_t room) {
    if (g->staged) process(g);
    flush(g);
    struct image head = {
        .format = FORMAT, .flow_size = sizeof *g->flows, .held_size = sizeof *g->pool,
        .beginning_size = sizeof *g->beginnings, .max_flows = g->config.max_flows, .max_held = g->config.max_held,
        .high_water = g->high_water, .free_head = g->free_head, .waiting_count = g->waiting_count,
        .beginning_at = g->beginning_at, .hash_mask = g->hash_mask, .note_count = g->note_count,
        .pool = g->pool, .pool_free = g->pool_free, .swept = g->swept, .stats = g->stats,
    };
    memcpy(head.notes, g->notes, sizeof head.notes);
    size_t slots = g->hash_mask + 1;
    if (put(image, &head, sizeof head) || put(image, g->hash, slots * sizeof *g->hash) ||
        put(image, g->flows, g->high_water * sizeof *g->flows) ||
        put(image, g->waiting, g->waiting_count * sizeof *g->waiting) ||
        put(image, g->pool, g->config.max_held * sizeof *g->pool) ||
        put(image, g->beginnings, g->beginning_count * sizeof *g->beginnings) ||
        put(image, g->beginning_hash, slots * sizeof *g->beginning_hash))
        return -1;
    uint32_t count = 0;
    for (uint32_t i = 0; i < g->high_water; i++)
        if (g->flows[i].used && put_own(&g->flows[i], image, fds, room, &count)) return -1;
    return (int)count;
}

static int get_own(struct flow *f, int image, const int *fds, uint32_t count) {
    struct own own;
    if (get(image, &own, sizeof own)) return -1;
    if (own.reply >= 0 && !(f->reply = get_new(image, (size_t)own.reply))) return -1;
    if (own.asked >= 0) { /* a longer request may come */
        if (own.asked > ASKED_MAX || !(f->asked = malloc(ASKED_MAX)) || get(image, f->asked, (size_t)own.asked)) return -1;
    }
    for (int i = 0; i < 2; i++) {
        struct direction *d = &f->dir[i];
        if (own.patches[i] > PATCHES || (own.patches[i] > 0 && !(d->patch = calloc(PATCHES, sizeof *d->patch)))) return -1;
        for (; d->patches < own.patches[i]; d->patches++) {
            struct patch *p = &d->patch[d->patches];
            if (get(image, p, sizeof *p) || !(p->bytes = get_new(image, p->length))) return -1;
        }
    }
    for (int i = 0; i < 2; i++) {
        struct direction *d = &f->dir[i];
        if (own.spool[i] < 0) continue;
        if ((uint32_t)own.spool[i] >= count) return -1;
        void *map = mmap(NULL, d->capacity, PROT_READ | PROT_WRITE, MAP_SHARED, fds[own.spool[i]], 0);
        if (map == MAP_FAILED) return -1;
        d->map = map;
        d->fd = fds[own.spool[i]];
    }
    return 0;
}

static struct held *moved(const struct gate *g, const struct image *head, const struct held *h) {
    return h ? g->pool + (h - head->pool) : NULL;
}

/* The looks that were under way ended with the process that asked for them. */
static void ask_again(struct gate *g, struct flow *f, uint32_t dir) {
    struct direction *d = &f->dir[dir];
    uint64_t self = (uint64_t)f->generation << 32 | (uint32_t)(f - g->flows + 1);
    if (!d->checking || f->state != OPEN) return;
    for (int i = 0; i < g->note_count; i++)
        if (g->notes[i].flow == self && g->notes[i].dir == dir && g->notes[i].kind != GATE_FRAME) return;
    d->checking = d->stale = 0;
    if (!d->map || g->note_count >= NOTES - 4) return; /* then the next pause asks */
    look(g, f, dir, all_here(d) || (d->expect && d->contig >= d->expect) ? GATE_COMPLETE : GATE_PAUSE);
}

static int restore(struct gate *g, int image, const int *fds, uint32_t count) {
    struct image head;
    size_t slots = g->hash_mask + 1;
    if (get(image, &head, sizeof head) || head.format != FORMAT || head.flow_size != sizeof *g->flows ||
        head.held_size != sizeof *g->pool || head.beginning_size != sizeof *g->beginnings ||
        head.max_flows != g->config.max_flows || head.max_held != g->config.max_held || head.hash_mask != g->hash_mask ||
        head.high_water > head.max_flows || head.waiting_count > head.max_flows || head.note_count > NOTES)
        return -1;
    if (get(image, g->hash, slots * sizeof *g->hash) || get(image, g->flows, head.high_water * sizeof *g->flows)) return -1;
    g->high_water = head.high_water;
    for (uint32_t i = 0; i < g->high_water; i++) {
        struct flow *f = &g->flows[i];
        f->reply = f->asked = NULL;
        if (!f->used) f->ammo = NULL;
        f->ammo = moved(g, &head, f->ammo);
        for (int n = 0; n < 2; n++) {
            struct direction *d = &f->dir[n];
            d->map = NULL;
            d->patch = NULL;
            d->patches = 0;
            d->fd = -1;
            d->head = f->used ? moved(g, &head, d->head) : NULL;
            d->tail = f->used ? moved(g, &head, d->tail) : NULL;
        }
    }
    if (get(image, g->waiting, head.waiting_count * sizeof *g->waiting) ||
        get(image, g->pool, head.max_held * sizeof *g->pool) ||
        get(image, g->beginnings, g->beginning_count * sizeof *g->beginnings) ||
        get(image, g->beginning_hash, slots * sizeof *g->beginning_hash))
        return -1;
    for (uint32_t i = 0; i < head.max_held; i++) g->pool[i].next = moved(g, &head, g->pool[i].next);
    g->pool_free = moved(g, &head, head.pool_free);
    g->free_head = head.free_head;
    g->waiting_count = head.waiting_count;
    g->beginning_at = head.beginning_at;
    g->note_count = head.note_count;
    g->swept = head.swept;
    g->stats = head.stats;
    memcpy(g->notes, head.notes, sizeof g->notes);
    for (uint32_t i = 0; i < g->high_water; i++)
        if (g->flows[i].used && get_own(&g->flows[i], image, fds, count)) return -1;
    return 0;
}

int gate_adopt(struct gate *g, int queue, int image, const int *fds, uint32_t count) {
    if (image >= 0 && (lseek(image, 0, SEEK_SET) || restore(g, image, fds, count))) return EINVAL;
    if (queue >= 0) {
        if (prepare(g) || !(g->nl = mnl_socket_fdopen(queue))) return errno;
        g->dry = 0;
        g->fd = queue;
    }
    set_now(g);
    for (uint32_t i = 0; i < g->high_water; i++)
        for (uint32_t dir = 0; g->flows[i].used && dir < 2; dir++) ask_again(g, &g->flows[i], dir);
    return 0;
}

void gate_again(struct gate *g, uint64_t flow, uint32_t dir, uint32_t kind) {
    struct flow *f = by_handle(g, flow);
    if (f && dir < 2 && f->state == OPEN && f->dir[dir].contig) note(g, f, dir, kind);
}

void gate_leave(struct gate *g, int drop) {
    for (uint32_t i = 0; g->flows && i < g->high_water; i++) {
        struct flow *f = &g->flows[i];
        if (!f->used) continue;
        for (int n = 0; n < 2; n++) {
            for (const struct held *h = drop ? f->dir[n].head : NULL; h; h = h->next) decide(g, h->id, NF_DROP, 0, NULL, 0);
            spool_free(g, &f->dir[n]);
            forget_patches(&f->dir[n], 0);
            free(f->dir[n].patch);
        }
        if (drop && f->ammo) decide(g, f->ammo->id, NF_DROP, 0, NULL, 0);
        free(f->reply);
        free(f->asked);
    }
    flush(g);
    dispose(g);
}

/* ---- test surface --------------------------------------------------------------------------------- */

void gate_feed(struct gate *g, uint32_t id, uint32_t mark, const uint8_t *packet, uint32_t length, int64_t now_us) {
    struct packet p = {.id = id, .mark = mark, .data = packet, .length = length};
    g->now = now_us;
    handle(g, &p);
}

void gate_tick(struct gate *g, int64_t now_us) {
    g->now = now_us;
    tick(g);
}

int gate_take_notes(struct gate *g, struct gate_note *notes, int max_notes) { return hand_over(g, notes, max_notes); }

int gate_take_verdicts(struct gate *g, struct gate_verdict *verdicts, int max) {
    int n = g->verdict_count < max ? g->verdict_count : max;
    if (!n) return 0;
    memcpy(verdicts, g->verdicts, (size_t)n * sizeof *verdicts);
    memmove(g->verdicts, g->verdicts + n, (size_t)(g->verdict_count - n) * sizeof *verdicts);
    g->verdict_count -= n;
    return n;
}
