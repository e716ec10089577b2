"""Fleet immunity: a file judged bad on one box is stopped by all the others within seconds."""
