/* Times: Unix microseconds and ISO text, as ckptlog/formats/short_event.py has them. */
#include "kernel.h"

#define SECOND 1000000LL
#define DAY (86400LL * SECOND)
#define TIME_MIN (-62135596800000000LL)  /* TIME_US_MIN: the year 1 */
#define TIME_MAX 253402300799999999LL    /* TIME_US_MAX: the end of 9999 */

/* Days are counted from 1 March of the year 0: a leap day is the last of its year then. */
#define EPOCH_DAY 719468
#define DAYS_OF_400_YEARS 146097
#define DAYS_OF_100_YEARS 36524
#define DAYS_OF_4_YEARS 1461

/* Reads so many digits; 0 where there is anything else. */
static int
take_digits(const char *from, int count, int *number)
{
    *number = 0;
    for (int i = 0; i < count; i++) {
        unsigned digit = (unsigned)(unsigned char)from[i] - '0';
        if (digit > 9) {
            return 0;
        }
        *number = *number * 10 + (int)digit;
    }
    return 1;
}

static int
days_in(int year, int month)
{
    static const char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && is_leap ? 29 : days[month - 1];
}

/* First day of a month that is counted from March. */
static int
month_start(int month)
{
    return (153 * month + 2) / 5;
}

int
kernel_take_time(const char *from, long long *us)
{
    int year, month, day, hour, minute, second, rest;
    if (!take_digits(from, 4, &year) || from[4] != '-' || !take_digits(from + 5, 2, &month)
        || from[7] != '-' || !take_digits(from + 8, 2, &day) || from[10] != 'T'
        || !take_digits(from + 11, 2, &hour) || from[13] != ':'
        || !take_digits(from + 14, 2, &minute) || from[16] != ':'
        || !take_digits(from + 17, 2, &second) || from[19] != '.'
        || !take_digits(from + 20, 6, &rest) || from[26] != 'Z') {
        return 0;
    }
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in(year, month) || hour > 23
        || minute > 59 || second > 59) {
        return 0;
    }
    int from_march = month > 2 ? month - 3 : month + 9, years = month > 2 ? year : year - 1;
    long long days = 365LL * years + years / 4 - years / 100 + years / 400
                     + month_start(from_march) + day - 1 - EPOCH_DAY;
    *us = days * DAY + (hour * 3600LL + minute * 60LL + second) * SECOND + rest;
    return 1;
}

static char *
put_digits(char *to, int count, int number)
{
    for (int i = count; i-- > 0; number /= 10) {
        to[i] = (char)('0' + number % 10);
    }
    return to + count;
}

static char *
put_date(char *to, int days)
{
    int years = days / DAYS_OF_400_YEARS * 400, rest = days % DAYS_OF_400_YEARS;
    /* The last of four centuries has a day more, the last of four years too. */
    int centuries = rest / DAYS_OF_100_YEARS < 4 ? rest / DAYS_OF_100_YEARS : 3;
    rest -= centuries * DAYS_OF_100_YEARS;
    years += centuries * 100 + rest / DAYS_OF_4_YEARS * 4;
    rest %= DAYS_OF_4_YEARS;
    int single = rest / 365 < 4 ? rest / 365 : 3;
    rest -= single * 365;
    int month = (5 * rest + 2) / 153;
    to = put_digits(to, 4, years + single + (month > 9));
    *to++ = '-';
    to = put_digits(to, 2, month > 9 ? month - 9 : month + 3);
    *to++ = '-';
    return put_digits(to, 2, rest - month_start(month) + 1);
}

int
kernel_put_time(char *to, long long us)
{
    if (us < TIME_MIN || us > TIME_MAX) {
        return 0;
    }
    us += EPOCH_DAY * DAY;  /* not negative: the year 1 comes after March of the year 0 */
    long long rest = us % DAY;
    int second = (int)(rest / SECOND);
    to = put_date(to, (int)(us / DAY));
    *to++ = 'T';
    to = put_digits(to, 2, second / 3600);
    *to++ = ':';
    to = put_digits(to, 2, second / 60 % 60);
    *to++ = ':';
    to = put_digits(to, 2, second % 60);
    *to++ = '.';
    to = put_digits(to, 6, (int)(rest % SECOND));
    *to = 'Z';
    return 1;
}
