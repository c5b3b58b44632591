/* What tells whether programs for this machine can be built and run. */
int main(void);

int main(void)
{
    return 0;
}
