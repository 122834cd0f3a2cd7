#include <iostream>
#include "sum.h"
int main() { std::cout << "hello " << sum(1, 2) << std::endl; }
