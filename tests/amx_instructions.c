/* AMX's instructions for a processor that has none: each is an illegal one there, and what the
   signal handler does instead is what Intel's manual of instructions says of it, refusals included.
   So the machine code itself is run, bytes, addresses and registers. Of the instructions only those
   that the engine uses; all have the long VEX prefix (C4), which tells them apart:

       LDTILECFG m512      0F38 49, no prefix       TILERELEASE    the same, byte C0 behind
       TILEZERO tmm        0F38 49, F2
       TILELOADD tmm, mem  0F38 4B, F2              TILESTORED     the same, F3
       TDPBF16PS c, a, b   0F38 5C, F3                                                            */

#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, NONE = 0, F3 = 2, F2 = 3 };

/* a thread's own: sizes as they were loaded (palette 0: none), and the tiles' bits */
static __thread uint8_t sizes[64];
static __thread uint32_t tiles[TILES][16][16];
static long products; /* of all threads */

static const int REGISTERS[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static void refuse(const char *why) {
    fprintf(stderr, "AMX instruction refused: %s\n", why);
    abort();
}

static int rows(int tile) { return sizes[48 + tile]; }

static int row_bytes(int tile) { return sizes[16 + 2 * tile] | sizes[17 + 2 * tile] << 8; }

static int configured(int tile) {
    if (tile >= TILES || !sizes[0] || !rows(tile)) refuse("a tile that has no size");
    return tile;
}

static void load_sizes(const uint8_t *given) {
    if (given[0] != 1 || given[1]) refuse("palette or first row");
    for (int i = 2; i < 16; i++)
        if (given[i]) refuse("a reserved byte is not zero");
    memcpy(sizes, given, 64);
    for (int tile = 0; tile < 16; tile++) {
        if (rows(tile) > 16 || row_bytes(tile) > 64 || row_bytes(tile) % 4) refuse("size");
        if (!rows(tile) != !row_bytes(tile)) refuse("rows without columns");
        if (tile >= TILES && rows(tile)) refuse("there are eight tiles");
    }
    memset(tiles, 0, sizeof tiles);
}

static void load(int tile, const char *first, int64_t stride) {
    memset(tiles[configured(tile)], 0, sizeof tiles[tile]);
    for (int r = 0; r < rows(tile); r++)
        memcpy(tiles[tile][r], first + r * stride, row_bytes(tile));
}

static void store(int tile, char *first, int64_t stride) {
    for (int r = 0; r < rows(configured(tile)); r++)
        memcpy(first + r * stride, tiles[tile][r], row_bytes(tile));
}

static float number(uint32_t bits) { /* of an upper half; what is denormal is zero */
    float found;
    bits &= bits & 0x7F800000 ? 0xFFFF0000 : 0x80000000;
    memcpy(&found, &bits, 4);
    return found;
}

static void multiply(int c, int a, int b) {
    configured(a), configured(b), configured(c);
    if (a == b || a == c || b == c) refuse("one tile twice");
    if (rows(c) != rows(a) || row_bytes(c) != row_bytes(b)) refuse("rows or columns of the sums");
    if (row_bytes(a) != 4 * rows(b)) refuse("columns of the left, rows of the right factor");
    for (int m = 0; m < rows(c); m++)
        for (int n = 0; n < row_bytes(c) / 4; n++) {
            float low = 0, high = 0, sum;
            for (int k = 0; k < rows(b); k++) {
                low = fmaf(number(tiles[a][m][k] << 16), number(tiles[b][k][n] << 16), low);
                high = fmaf(number(tiles[a][m][k]), number(tiles[b][k][n]), high);
            }
            memcpy(&sum, &tiles[c][m][n], 4);
            sum += low + high;
            memcpy(&tiles[c][m][n], &sum, 4);
        }
    __atomic_add_fetch(&products, 1, __ATOMIC_RELAXED);
}

static void illegal(int signal, siginfo_t *info, void *where) {
    (void)signal, (void)info;
    greg_t *registers = ((ucontext_t *)where)->uc_mcontext.gregs;
    uint8_t *code = (uint8_t *)registers[REG_RIP], *end = code + 5;
    if (code[0] != 0xC4 || (code[1] & 0x1F) != 2 || code[2] & 0x84) refuse("not one of them");
    int high_index = ~code[1] >> 6 & 1, high_base = ~code[1] >> 5 & 1;
    int third = ~code[2] >> 3 & 15, prefix = code[2] & 3, operation = code[3];
    int mode = code[4] >> 6, tile = code[4] >> 3 & 7, low = code[4] & 7;
    if (!(code[1] & 0x80)) refuse("there are eight tiles");
    char *base = 0;
    int64_t stride = 0;
    int32_t far = 0;
    if (mode != 3) { /* an address: base + index · scale + distance */
        int wide = mode == 2;
        if (low == 4) {
            int index = (*end >> 3 & 7) | high_index << 3, of = *end & 7;
            if (index != 4) stride = (int64_t)registers[REGISTERS[index]] << (*end >> 6);
            if (of == 5 && mode == 0) wide = 1;
            else base = (char *)registers[REGISTERS[of | high_base << 3]];
            end++;
        } else if (low == 5 && mode == 0) {
            wide = 1, base = (char *)end + 4;
        } else {
            base = (char *)registers[REGISTERS[low | high_base << 3]];
        }
        if (mode == 1) far = (int8_t)*end++;
        if (wide) memcpy(&far, end, 4), end += 4;
        base += far;
    }
    if (operation == 0x49 && prefix == NONE && mode != 3 && tile == 0)
        load_sizes((uint8_t *)base + stride);
    else if (operation == 0x49 && prefix == NONE && code[4] == 0xC0)
        memset(sizes, 0, sizeof sizes);
    else if (operation == 0x49 && prefix == F2 && mode == 3 && low == 0)
        memset(tiles[configured(tile)], 0, sizeof tiles[tile]);
    else if (operation == 0x4B && prefix == F2 && mode != 3 && low == 4)
        load(tile, base, stride);
    else if (operation == 0x4B && prefix == F3 && mode != 3 && low == 4)
        store(tile, base, stride);
    else if (operation == 0x5C && prefix == F3 && mode == 3)
        multiply(tile, low | high_base << 3, third);
    else
        refuse("not one of them");
    registers[REG_RIP] = (greg_t)end;
}

void stand_in(void) {
    struct sigaction action = {.sa_sigaction = illegal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGILL, &action, 0);
}

long products_so_far(void) { return products; }
