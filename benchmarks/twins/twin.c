/*
 * The obvious loop, as a yardstick: what a C programmer would write for one moving-average backtest.
 *
 * One pass over the bars, long or flat, one unit. Money and prices are integers (times 10^8), rates are parts per
 * million. Fees are exact: beside an amount that is rounded down stands its rest in millionths. The caller also gives
 * the index of each day's last bar, as the engine's candles have it, and room for the equity at each.
 */
#include <stdint.h>

#define MILLION 1000000

struct money {
    int64_t whole, rest;
};

struct input {
    const int64_t *open, *high, *low, *close;
    int64_t n;
    const int64_t *day_ends;
    int64_t days;
    int64_t fast, slow;
    int64_t fee, slippage, stop_loss, take_profit;
    struct money *day_equity;
    const int64_t *sums; /* of closes, n + 1; they may wrap around */
    uint64_t *above;     /* room for a bit a bar */
};

struct result {
    struct money profit, drawdown, fees, gross_profit, gross_loss; /* the rests of the last three are sums */
    int64_t fills, trades, wins, exposure, ambiguous, days;
};

/* The account: `cash` is everything but the mark of an open position. */
struct account {
    int64_t held, entry;
    struct money cash, before;
};

/* The distance of a slippage, a stop or a target: rounded up. */
static inline int64_t distance(int64_t price, int64_t rate) { return (price * rate + MILLION - 1) / MILLION; }

static inline struct money less(struct money a, struct money b)
{
    struct money out = {a.whole - b.whole, a.rest - b.rest};
    if (out.rest < 0) {
        out.whole--;
        out.rest += MILLION;
    }
    return out;
}

static inline int above(struct money a, struct money b)
{
    return a.whole > b.whole || (a.whole == b.whole && a.rest > b.rest);
}

static inline void pay(struct account *a, struct result *r, const struct input *in, int64_t fill, int64_t side)
{
    int64_t product = fill * in->fee;
    struct money fee = {product / MILLION, product % MILLION};
    a->cash = less(a->cash, (struct money){side * fill + fee.whole, fee.rest});
    r->fees.whole += fee.whole;
    r->fees.rest += fee.rest;
    r->fills++;
}

static inline void buy(struct account *a, struct result *r, const struct input *in, int64_t raw)
{
    a->before = a->cash;
    a->held = 1;
    a->entry = raw + distance(raw, in->slippage);
    pay(a, r, in, a->entry, 1);
}

static inline void sell(struct account *a, struct result *r, const struct input *in, int64_t raw)
{
    a->held = 0;
    pay(a, r, in, raw - distance(raw, in->slippage), -1);
    struct money profit = less(a->cash, a->before);
    r->trades++;
    if (above(profit, (struct money){0, 0})) {
        r->wins++;
        r->gross_profit.whole += profit.whole;
        r->gross_profit.rest += profit.rest;
    } else {
        r->gross_loss.whole -= profit.whole;
        r->gross_loss.rest -= profit.rest;
    }
}

/* `with_stops` is a constant where this is called, so each caller gets its own loop. */
static inline __attribute__((always_inline)) void loop(const struct input *in, struct result *out, int with_stops)
{
    const int64_t *open = in->open, *high = in->high, *low = in->low, *close = in->close, *day_ends = in->day_ends;
    const int64_t n = in->n, fast = in->fast, slow = in->slow;
    struct result r = {0};
    struct account a = {0};
    int64_t fast_sum = 0, slow_sum = 0, want = 0, locked = 0, stop = 0, take = 0;
    int64_t day = 0;
    struct money equity = {0}, peak = {0};

    for (int64_t i = 0; i < n; i++) {
        /* open */
        int64_t entry_bar = 0;
        if (with_stops && !want)
            locked = 0;
        int64_t position = want && !locked;
        if (position != a.held) {
            if (position) {
                buy(&a, &r, in, open[i]);
                entry_bar = 1;
                if (with_stops) {
                    stop = in->stop_loss ? a.entry - distance(a.entry, in->stop_loss) : INT64_MIN;
                    take = in->take_profit ? a.entry + distance(a.entry, in->take_profit) : INT64_MAX;
                }
            } else {
                sell(&a, &r, in, open[i]);
            }
        }

        /* intrabar: an open beyond a level first, then the stop */
        if (with_stops && a.held && (low[i] <= stop || high[i] >= take)) {
            if (!entry_bar && (open[i] <= stop || open[i] >= take)) {
                sell(&a, &r, in, open[i]);
            } else if (low[i] <= stop) {
                r.ambiguous += high[i] >= take;
                sell(&a, &r, in, stop);
            } else {
                sell(&a, &r, in, take);
            }
            locked = 1;
        }

        /* decide */
        fast_sum += close[i];
        slow_sum += close[i];
        if (i >= fast)
            fast_sum -= close[i - fast];
        if (i >= slow)
            slow_sum -= close[i - slow];
        want = i >= slow - 1 && fast_sum * slow > slow_sum * fast;

        /* mark */
        equity = a.cash;
        equity.whole += a.held ? close[i] : 0;
        if (equity.whole >= peak.whole && above(equity, peak))
            peak = equity;
        if (peak.whole - equity.whole >= r.drawdown.whole) {
            struct money fall = less(peak, equity);
            if (above(fall, r.drawdown))
                r.drawdown = fall;
        }
        r.exposure += a.held;
        if (day < in->days && i == day_ends[day])
            in->day_equity[day++] = equity;
    }
    r.profit = equity;
    r.days = day;
    *out = r;
}

void cross(const struct input *in, struct result *out) { loop(in, out, 0); }

void cross_with_stops(const struct input *in, struct result *out) { loop(in, out, 1); }

/*
 * The same by crossings, as the engine does it: a bit for each bar, from differences of sums that are the same for all
 * pairs; then only bars at which the position changes, and the closes between while it is held.
 */
static void above_bits(const struct input *in)
{
    const int64_t *s = in->sums;
    const int64_t n = in->n, fast = in->fast, slow = in->slow;
    for (int64_t word = 0; word * 64 < n; word++) {
        uint64_t bits = 0;
        int64_t first = word * 64, last = first + 64 < n ? first + 64 : n;
        for (int64_t i = first < slow - 1 ? slow - 1 : first; i < last; i++) {
            int64_t mine = (int64_t)((uint64_t)s[i + 1] - (uint64_t)s[i + 1 - fast]) * slow;
            int64_t other = (int64_t)((uint64_t)s[i + 1] - (uint64_t)s[i + 1 - slow]) * fast;
            bits |= (uint64_t)(mine > other) << (i - first);
        }
        in->above[word] = bits;
    }
}

/* The first bar from `i` on whose bit is `want`. */
static inline int64_t next_bar(const uint64_t *above, int64_t i, int64_t n, int want)
{
    while (i < n) {
        uint64_t word = (want ? above[i >> 6] : ~above[i >> 6]) >> (i & 63);
        if (word) {
            i += __builtin_ctzll(word);
            return i < n ? i : n;
        }
        i = (i | 63) + 1;
    }
    return n;
}

/* Mark bars `from` to `to` - 1. Rests are those of `cash`, so closes alone say where the highest and the deepest are. */
static void mark(const struct input *in, const struct account *a, struct result *r, struct money *peak, int64_t from,
                 int64_t to, int64_t *day)
{
    if (from >= to)
        return;
    const int64_t *close = in->close;
    struct money equity = a->cash;
    if (a->held) {
        int64_t top = INT64_MIN, fall = 0, first = close[from], lowest = first;
        for (int64_t i = from; i < to; i++) {
            top = close[i] > top ? close[i] : top;
            fall = top - close[i] > fall ? top - close[i] : fall;
            lowest = close[i] < lowest ? close[i] : lowest;
        }
        struct money high = {a->cash.whole + top, a->cash.rest}, low = {a->cash.whole + lowest, a->cash.rest};
        struct money inside = {fall, 0};
        if (above(inside, r->drawdown))
            r->drawdown = inside;
        if (!above(high, *peak)) { /* below the peak all along: the lowest close is the deepest */
            struct money deep = less(*peak, low);
            if (above(deep, r->drawdown))
                r->drawdown = deep;
        } else { /* until the first close above the peak the old one counts */
            int64_t least = INT64_MAX;
            for (int64_t i = from; i < to; i++) {
                struct money now = {a->cash.whole + close[i], a->cash.rest};
                if (above(now, *peak))
                    break;
                least = close[i] < least ? close[i] : least;
            }
            if (least != INT64_MAX) {
                struct money deep = less(*peak, (struct money){a->cash.whole + least, a->cash.rest});
                if (above(deep, r->drawdown))
                    r->drawdown = deep;
            }
            *peak = high;
        }
        r->exposure += to - from;
    } else {
        if (above(equity, *peak))
            *peak = equity;
        struct money deep = less(*peak, equity);
        if (above(deep, r->drawdown))
            r->drawdown = deep;
    }
    while (*day < in->days && in->day_ends[*day] < to) {
        in->day_equity[*day] = (struct money){a->cash.whole + (a->held ? close[in->day_ends[*day]] : 0), a->cash.rest};
        (*day)++;
    }
}

void cross_by_crossings(const struct input *in, struct result *out)
{
    struct result r = {0};
    struct account a = {0};
    struct money peak = {0};
    int64_t day = 0, from = 0;
    above_bits(in);
    while (from < in->n) {
        int64_t change = next_bar(in->above, from, in->n, !a.held) + 1; /* filled at the next open */
        int64_t to = change < in->n ? change : in->n;
        mark(in, &a, &r, &peak, from, to, &day);
        if (change < in->n) {
            if (a.held)
                sell(&a, &r, in, in->open[change]);
            else
                buy(&a, &r, in, in->open[change]);
        }
        from = to;
    }
    r.profit = a.cash;
    r.profit.whole += a.held ? in->close[in->n - 1] : 0;
    r.days = day;
    *out = r;
}
