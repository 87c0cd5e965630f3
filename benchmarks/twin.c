/*
 * The obvious loop, as a yardstick: what a C programmer would write for one moving-average backtest.
 *
 * One pass over the bars, long or flat, one unit. Money and prices are integers (times 10^8), rates are parts per
 * million. The caller also gives the index of each day's last bar, as the engine's tape has it.
 */
#include <stdint.h>

#define MILLION 1000000

struct input {
    const int64_t *open, *high, *low, *close;
    int64_t n;
    const int64_t *day_ends;
    int64_t days;
    int64_t fast, slow;
    int64_t fee, slippage, stop_loss, take_profit;
};

struct result {
    int64_t profit, drawdown, fees, fills, trades, wins, gross_profit, gross_loss, exposure, ambiguous;
    int64_t days, day_sum;
    uint64_t squares_low;
    int64_t squares_high;
};

/* The account: `cash` is everything but the mark of an open position. */
struct account {
    int64_t held, entry, entry_cash, cash;
};

static inline void buy(struct account *a, struct result *r, const struct input *in, int64_t raw)
{
    int64_t fill = raw + raw * in->slippage / MILLION;
    int64_t fee = fill * in->fee / MILLION;
    a->held = 1;
    a->entry = fill;
    a->entry_cash = -fill - fee;
    a->cash += a->entry_cash;
    r->fees += fee;
    r->fills++;
}

static inline void sell(struct account *a, struct result *r, const struct input *in, int64_t raw)
{
    int64_t fill = raw - raw * in->slippage / MILLION;
    int64_t fee = fill * in->fee / MILLION;
    int64_t profit = a->entry_cash + fill - fee;
    a->held = 0;
    a->cash += fill - fee;
    r->fees += fee;
    r->fills++;
    r->trades++;
    if (profit > 0) {
        r->wins++;
        r->gross_profit += profit;
    } else {
        r->gross_loss -= profit;
    }
}

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

/* `with_stops` is a constant where this is called, so each caller gets its own loop. */
static inline __attribute__((always_inline)) void loop(const struct input *in, struct result *out, int with_stops)
{
    const int64_t *open = in->open, *high = in->high, *low = in->low, *close = in->close, *day_ends = in->day_ends;
    const int64_t n = in->n, fast = in->fast, slow = in->slow;
    struct result r = {0};
    struct account a = {0};
    int64_t fast_sum = 0, slow_sum = 0, want = 0, locked = 0, stop = 0, take = 0;
    int64_t equity = 0, peak = 0, day = 0, day_before = 0;
    __int128 squares = 0;

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
                    stop = in->stop_loss ? a.entry - a.entry * in->stop_loss / MILLION : INT64_MIN;
                    take = in->take_profit ? a.entry + a.entry * in->take_profit / MILLION : INT64_MAX;
                }
            } else {
                sell(&a, &r, in, open[i]);
            }
        }

        /* intrabar: the stop first */
        if (with_stops && a.held) {
            if (low[i] <= stop) {
                r.ambiguous += high[i] >= take;
                sell(&a, &r, in, entry_bar ? stop : min(open[i], stop));
                locked = 1;
            } else if (high[i] >= take) {
                sell(&a, &r, in, entry_bar ? take : max(open[i], take));
                locked = 1;
            }
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
        equity = a.cash + (a.held ? close[i] : 0);
        peak = max(peak, equity);
        r.drawdown = max(r.drawdown, peak - equity);
        r.exposure += a.held;
        if (day < in->days && i == day_ends[day]) {
            int64_t profit = equity - day_before;
            squares += (__int128)profit * profit;
            r.day_sum += profit;
            day_before = equity;
            day++;
        }
    }
    r.profit = equity;
    r.days = day;
    r.squares_low = (uint64_t)squares;
    r.squares_high = (int64_t)(squares >> 64);
    *out = r;
}

void cross(const struct input *in, struct result *out) { loop(in, out, 0); }

void cross_with_stops(const struct input *in, struct result *out) { loop(in, out, 1); }
