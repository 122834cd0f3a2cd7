int sum(int left, int right);
