/* What start.c gives to main and takes from it. */
#ifndef START_H
#define START_H

int main(void);

/* Write text that ends with a zero byte. */
void say(const char *text);

#endif
