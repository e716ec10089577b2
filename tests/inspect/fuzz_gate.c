/* Random and mutated packets and answers against the gate, without a kernel queue, under the sanitizers.
 * fuzz_gate SEED MILLISECONDS: exits 0, or dies where the gate went wrong. At the end nothing may be left waiting. */
#include "gate.c"

#include <stdio.h>

static uint64_t state;

static uint32_t rnd(uint32_t n) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return n ? (uint32_t)(state >> 16) % n : 0;
}

static uint8_t buffer[70000];
static uint32_t next_id = 1, port_base;
static uint64_t fed, decided;

static const char *const texts[] = {
    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /a HTTP/1.1\r\n\r\n", "POST /a HTTP/1.1\r\n\r\n", "0\r\n\r\n", "\r\n0\r\n\r\n", "DATA\r\n", "\r\n.\r\n", ".\r\n", "x",
};

static uint32_t build(uint32_t *mark) {
    static const uint32_t marks[] = {MARK_HTTP, MARK_MAIL, MARK_FTPDATA, MARK_POP3, MARK_SMB, MARK_HTTP | MARK_MAIL,
                                     MARK_IMAP, 0};
    static const uint8_t flags[] = {ACK, ACK, ACK, ACK, PSH | ACK, ACK | FIN, RST, SYN, ACK | RST, FIN, SYN | ACK};
    int reply = (int)rnd(2), six = !rnd(4);
    uint32_t at, port = port_base + rnd(8), kind = marks[port % 8];
    uint32_t options = rnd(8) ? 0 : rnd(10) * 4, extra = six || rnd(8) ? 0 : rnd(10) * 4;
    if (!rnd(50)) kind = marks[rnd(8)];
    if (!kind && rnd(8)) kind = MARK_SEEN | (reply ? 0 : MARK_WATCHED);
    if (!rnd(40)) kind |= MARK_REFUSE | rnd(16) << MARK_WHY_SHIFT | rnd(16) << MARK_ENGINE_SHIFT;
    memset(buffer, 0, 256);
    if (six) {
        uint32_t hops = rnd(6) ? 0 : rnd(4);
        buffer[0] = 0x60;
        buffer[6] = hops ? (uint8_t[]){0, 43, 60}[rnd(3)] : IPPROTO_TCP;
        at = 40;
        for (uint32_t i = 0; i < hops; i++) {
            buffer[at] = i + 1 < hops ? 60 : IPPROTO_TCP;
            buffer[at + 1] = (uint8_t)rnd(4);
            at += (buffer[at + 1] + 1u) * 8;
        }
        buffer[23] = reply ? 2 : 1, buffer[39] = reply ? 1 : 2;
    } else {
        at = 20 + extra;
        buffer[0] = (uint8_t)(0x40 | at / 4);
        buffer[9] = IPPROTO_TCP;
        buffer[15] = reply ? 2 : 1, buffer[19] = reply ? 1 : 2;
    }
    uint32_t payload = at + 20 + options, room = rnd(3) ? rnd(1461) : rnd(12) ? rnd(20) : rnd(60000);
    put16(buffer + at, reply ? 80 : port);
    put16(buffer + at + 2, reply ? port : 80);
    uint32_t seq = (port * 2654435761u) + (rnd(4) ? rnd(20) * 1000 : rnd(100) ? rnd(3000000) : rnd(0x7fffffff) * 2);
    put32(buffer + at + 4, seq);
    put32(buffer + at + 8, rnd(3) ? rnd(100000) : port * 2654435761u + rnd(3) * 1000);
    buffer[at + 12] = (uint8_t)((20 + options) / 4 << 4);
    buffer[at + 13] = flags[rnd(sizeof flags)];
    for (uint32_t i = 0; i < room; i++) buffer[payload + i] = (uint8_t)i;
    if (!rnd(3)) {
        const char *text = texts[rnd(sizeof texts / sizeof *texts)];
        uint32_t n = (uint32_t)strlen(text);
        if (rnd(2)) room = n;
        if (n <= room) memcpy(buffer + payload + room - n, text, n);
    }
    uint32_t length = payload + room;
    if (six) put16(buffer + 4, length - 40);
    else put16(buffer + 2, length);
    if (!rnd(20))
        for (uint32_t i = rnd(6); i; i--) buffer[rnd(80)] = (uint8_t)rnd(256);
    if (!rnd(30)) length = rnd(length + 1);
    *mark = kind | (reply ? MARK_REPLY : 0);
    return length;
}

static void change(struct gate *g, uint64_t flow, uint32_t dir, uint64_t length) {
    static const uint8_t patch[3000] = {'X'};
    uint64_t from = gate_delivered(g, flow, dir);
    uint64_t offset = from < length && rnd(4) ? from + rnd((uint32_t)(length - from)) : rnd(100000);
    gate_rewrite(g, flow, dir, offset, patch, rnd(rnd(3) ? 50 : sizeof patch));
}

static void answer(struct gate *g) {
    static const char reply[] = "554 5.7.1 Refused.\r\n";
    struct gate_note notes[NOTES];
    int n = gate_take_notes(g, notes, NOTES);
    for (int i = 0; i < n; i++) {
        uint64_t flow = notes[i].flow;
        uint32_t dir = notes[i].dir;
        if (!rnd(50)) gate_release(g, (uint64_t)rnd(0xffffffff) << rnd(20), rnd(5), rnd(100000), rnd(100000));
        switch (notes[i].kind) {
        case GATE_TOO_BIG:
            gate_pass(g, flow, dir, (int)(flow & 1));
            break;
        case GATE_FRAME:
            gate_expect(g, flow, dir, rnd(2) ? 0 : notes[i].base + notes[i].length + rnd(5000));
            break;
        default:
            for (uint32_t n = rnd(4) ? 0 : rnd(8); n; n--) change(g, flow, dir, notes[i].length);
            if (!rnd(12)) gate_cut(g, flow, dir, rnd(2) ? reply : NULL, sizeof reply - 1);
            else gate_release(g, flow, dir, notes[i].length, rnd(3) ? 0 : rnd((uint32_t)notes[i].length + 1));
        }
    }
}

static void count(struct gate *g) {
    static struct gate_verdict out[32];
    for (int n; (n = gate_take_verdicts(g, out, 32));) decided += (uint64_t)n;
}

static void ask(struct gate *g) {
    struct gate_key key = {.client = {0, 0, 0, 1}, .server = {0, 0, 0, 2}, .server_port = 80, .family = 4};
    uint32_t dir, kind;
    uint64_t length;
    key.client_port = (uint16_t)(port_base + rnd(8));
    if (rnd(2)) key = turned(&key);
    uint64_t flow = gate_find(g, &key, rnd(3) ? 0 : MARK_FILES & (MARK_HTTP << rnd(16)), &dir);
    if (!rnd(3)) dir = rnd(2);
    gate_key_of(g, flow, &key, &kind);
    gate_spool(g, flow, dir, &length);
    char asked[ASKED_MAX];
    gate_asked(g, flow, asked, rnd(2) ? ASKED_MAX : rnd(ASKED_MAX));
    switch (rnd(12)) {
    case 0: gate_cut(g, flow, dir, rnd(2) ? "554 no\r\n" : NULL, 8); break;
    case 1: gate_pass(g, flow, dir, (int)(flow & 1)); break;
    case 2: case 3: gate_expect(g, flow, dir, rnd(100000)); break;
    case 4: gate_release(g, flow, dir, rnd(100000), rnd(100000)); break;
    default: change(g, flow, dir, length);
    }
}

/* The gate goes on in another process: one that fails to take it leaves it as it was. */
static struct gate *succeed(struct gate *g, const struct gate_config *config) {
    static int fds[1024];
    int image = memfd_create("image", MFD_CLOEXEC), count = gate_freeze(g, image, fds, 1024);
    if (count < 0) return NULL;
    struct gate_config other = *config;
    other.max_held++;
    struct gate *heir = gate_open_dry(rnd(4) ? config : &other);
    int fails = heir->config.max_held != config->max_held || (count && !rnd(4));
    if (fails) {
        if (!gate_adopt(heir, -1, image, fds, 0)) return NULL;
        gate_leave(heir, 0);
        close(image);
        return g;
    }
    for (int i = 0; i < count; i++) fds[i] = dup(fds[i]);
    if (gate_adopt(heir, -1, image, fds, (uint32_t)count)) return NULL;
    close(image);
    gate_leave(g, 0);
    return heir;
}

/* Everything is answered and time passes: nothing may be left waiting, and after long silence nothing kept. */
static int settle(struct gate *g, int64_t *now) {
    struct gate_stats stats;
    for (int turn = 0; turn < 400; turn++) {
        *now += 50000;
        gate_tick(g, *now);
        struct gate_note notes[NOTES];
        int n = gate_take_notes(g, notes, NOTES);
        for (int i = 0; i < n; i++) gate_release(g, notes[i].flow, notes[i].dir, notes[i].length, 0);
        count(g);
        gate_get_stats(g, &stats);
        if (!stats.holding) break;
    }
    for (uint32_t i = 0; stats.holding && i < g->high_water; i++)
        for (uint32_t dir = 0; dir < 2; dir++)
            if (g->flows[i].used && (g->flows[i].dir[dir].head || g->flows[i].ammo)) {
                const struct direction *d = &g->flows[i].dir[dir];
                fprintf(stderr, "left waiting: kind %x state %u dir %u waiting %u ammo %d checking %u shed %u pass %u contig %llu seq %d plen %u\n",
                        g->flows[i].kind, g->flows[i].state, dir, g->flows[i].waiting, g->flows[i].ammo != NULL, d->checking,
                        d->shed, d->pass, (unsigned long long)d->contig, d->head ? (int)(d->head->seq - d->base) : 0, d->head ? d->head->plen : 0);
            }
    if (fed != decided) fprintf(stderr, "%llu fed, %llu decided\n", (unsigned long long)fed, (unsigned long long)decided);
    int bad = stats.holding || fed != decided;
    for (int turn = 0; !bad && turn < 3; turn++) {
        struct gate_note notes[NOTES];
        *now += UNFINISHED_IDLE_US + 1000000;
        gate_tick(g, *now);
        gate_take_notes(g, notes, NOTES);
    }
    gate_get_stats(g, &stats);
    if (!bad && (stats.flows || stats.spooled || g->waiting_count)) {
        fprintf(stderr, "kept: %llu flows, %lld bytes, %u waiting\n", (unsigned long long)stats.flows,
                (long long)stats.spooled, g->waiting_count);
        bad = 1;
    }
    return bad;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    state = strtoull(argv[1], NULL, 10) * 2654435761u + 88172645463325252u;
    int64_t began = clock_us(), limit = atoll(argv[2]) * 1000, now = began;
    unsigned long long rounds = 0;
    while (clock_us() - began < limit) {
        struct gate_config config = {.max_flows = 1 + rnd(8), .max_held = 1 + rnd(60), .spool_limit = 1000 + rnd(rnd(2) ? 20000 : 2000000),
                                     .spool_total = rnd(4) ? 8 << 20 : rnd(300000), .depth = rnd(60000), .deadline_ms = 100,
                                     .pause_us = 3000};
        struct gate *g = gate_open_dry(&config);
        static const char page[] = "HTTP/1.1 403 No\r\n\r\n" GATE_REFERENCE " " GATE_REFERENCE;
        for (uint32_t why = 0; why < GATE_PAGES + 2; why += 1 + rnd(3)) gate_set_page(g, why, page, rnd(sizeof page));
        fed = decided = 0;
        port_base = 1000 + rnd(60000);
        for (int i = 0; i < 600; i++) {
            now += rnd(20) ? rnd(2000) : rnd(300) ? rnd(200000) : 200000000;
            uint32_t mark = 0, length = build(&mark);
            uint8_t *exact = malloc(length + 1); /* of its own size, so that one byte too far is seen */
            memcpy(exact, buffer, length);
            gate_feed(g, next_id++, mark, exact, length, now);
            free(exact);
            fed++;
            if (!rnd(4)) ask(g);
            if (!rnd(8)) gate_tick(g, now);
            if (rnd(4)) answer(g);
            count(g);
            if (!rnd(100) && !(g = succeed(g, &config))) return 1;
        }
        int bad = settle(g, &now);
        gate_close(g);
        if (bad) return 1;
        rounds++;
    }
    printf("%llu rounds\n", rounds);
    return 0;
}
