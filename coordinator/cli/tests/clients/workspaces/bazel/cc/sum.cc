#include "cc/sum.h"
int sum(int left, int right) { return left + right; }
